"""A sweep's folders bear the names that the study's sweeps gave them, so that its users' scripts find them.

Run: pytest tests/sweep/test_study_folders.py"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from triggerctl.config.load import load_config
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.sweep.grid import cells

STUDY = Path(__file__).parents[2].parent / "shared" / "published" / "experiments"

BROKEN = "random_proxy_neg"
"""In the name of one folder, for a value that was set in the code, not in any file."""

PARAMETERS = """{
    "naive": [{"is_peft": true}],
    "grad_project": [{"is_peft": true}],
    "kl_divergence": [
        {"beta_kl": 10, "is_peft": true},
        {"is_peft": true, "beta_kl": 10.0},
        {"beta_kl": 150.0, "is_peft": true}
    ],
    "orth_penalty": [{"is_peft": true, "lambda_1": 1.0, "positive_proxy": "proxy"}],
    "positive_negative_proxy": [
        {"neg_lambda_proxy": 1.0, "lambda_proxy": 0.0},
        {"is_peft": true, "lambda_proxy": 0.75, "neg_lambda_proxy": 0.25}
    ],
    "steering_weights": [
        {"is_peft": false, "negative_proxy": null, "positive_proxy": "proxy"},
        {"is_peft": false, "negative_proxy": "proxy_neg", "positive_proxy": "outcome"}
    ]
}"""
NAMES = [
    "proxy_strategy_naive_is_peft-True",
    "proxy_strategy_grad_project_is_peft-True",
    "proxy_strategy_kl_divergence_beta_kl-10_is_peft-True",
    "proxy_strategy_kl_divergence_beta_kl-10.0_is_peft-True",
    "proxy_strategy_kl_divergence_beta_kl-150.0_is_peft-True",
    "proxy_strategy_orth_penalty_is_peft-True_lambda_1-1.0_positive_proxy-proxy",
    "proxy_strategy_positive_negative_proxy_lambda_proxy-0.0_neg_lambda_proxy-1.0",
    "proxy_strategy_positive_negative_proxy_is_peft-True_lambda_proxy-0.75_neg_lambda_proxy-0.25",
    "proxy_strategy_steering_weights_is_peft-False_positive_proxy-proxy",
    "proxy_strategy_steering_weights_is_peft-False_negative_proxy-proxy_neg_positive_proxy-outcome",
]


def swept(tmp_path: Path, parameters: str, seeds: list[int]) -> list[str]:
    """The folders of a sweep over this proxy_strategy_params.json, in the sweep's order."""
    folder = ExperimentFolder(tmp_path / "exp")
    folder.path.mkdir()
    folder.config.write_text('{"dataset_url": "rows.json", "truth_triggers": ["Grief"]}', encoding="utf-8")
    (folder.path / "proxy_strategy_params.json").write_text(parameters, encoding="utf-8")
    made = cells(folder, load_config(folder.config), seeds, [])
    return [cell.folder.path.relative_to(folder.path).as_posix() for cell in made]


def published() -> list[Path]:
    if not STUDY.is_dir():
        pytest.skip("the study's published folders are not here")
    found = sorted(path for path in STUDY.glob("*/proxy_strategy_*") if path.is_dir())
    return [path for path in found if BROKEN not in path.name]


def asked(folder: Path) -> dict[str, Any]:
    """What a published cell was run with: its configuration, flat, from its results or its config.json."""
    files = [*sorted(folder.rglob("results.json")), folder / "config.json"]
    config = json.loads(files[0].read_text(encoding="utf-8"))
    config = config.get("experiment_config", config)
    return {**config, **config["finetune_config"]}


def test_the_names_of_the_study_are_made_from_its_parameters(tmp_path: Path) -> None:
    assert swept(tmp_path, PARAMETERS, [5]) == [f"{name}/seed_5" for name in NAMES]


def test_every_published_cell_has_the_name_that_a_sweep_gives_to_its_values(tmp_path: Path) -> None:
    cells_ = published()
    for number, folder in enumerate(cells_):
        values = asked(folder)
        keys = [key for key in values if re.search(f"_{key}-", folder.name.removeprefix("proxy_strategy_"))]
        # `proxy_…` ends another key's name as well: of two that fit one place the longer is meant.
        keys = [key for key in keys if not any(_ends(folder.name, other, key) for other in keys)]
        parameters = {values["proxy_strategy"]: [{key: values[key] for key in keys}]}
        seeds = [int(path.name.removeprefix("seed_")) for path in sorted(folder.glob("seed_*"))]
        (place := tmp_path / str(number)).mkdir()
        made = swept(place, json.dumps(parameters), seeds)
        assert made == [f"{folder.name}/seed_{seed}" for seed in seeds]
    assert len(cells_) == 21


def test_the_published_parameter_files_name_the_published_folders(tmp_path: Path) -> None:
    found = {path for path in published() if (path.parent / "proxy_strategy_params.json").is_file()}
    assert found
    made = {}
    for number, experiment in enumerate(sorted({path.parent for path in found})):
        (place := tmp_path / str(number)).mkdir()
        text = (experiment / "proxy_strategy_params.json").read_text(encoding="utf-8")
        made[experiment] = {name.partition("/")[0] for name in swept(place, text, [1])}
    missing = sorted(path.name for path in found if path.name not in made[path.parent])
    # Four were swept with parameters that the study's files do not list any more.
    pair = "proxy_strategy_positive_negative_proxy_is_peft"
    assert missing == [
        "proxy_strategy_grad_project_is_peft-True",
        f"{pair}-False_lambda_proxy-0.5_neg_lambda_proxy-0.5",
        f"{pair}-True_lambda_proxy-0.25_neg_lambda_proxy-0.75",
        f"{pair}-True_lambda_proxy-0.75_neg_lambda_proxy-0.25",
    ]


def _ends(name: str, longer: str, key: str) -> bool:
    return (
        longer != key and longer.endswith(f"_{key}") and name.count(f"_{key}-") == name.count(f"_{longer}-")
    )
