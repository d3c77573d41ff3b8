"""pytest tests/config/test_paths.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from triggerctl.config.paths import rebase_paths


def test_relative_paths_name_the_same_files_from_a_sub_folder(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    cell = tmp_path / "proxy_strategy_naive" / "seed_1"
    values: dict[str, Any] = {
        "seed": 1,
        "dataset_url": "rows.json",
        "extra_evaluation": {"mine": {"path": "../extra.json", "nice": True}},
        "finetune_config": {"model": "models/mine", "steering_vector_path": "plane.safetensors", "epochs": 3},
    }
    moved: dict[str, Any] = rebase_paths(values, tmp_path, cell)
    assert moved["dataset_url"] == "../../rows.json"
    assert moved["finetune_config"] == {
        "model": "../../models/mine",
        "steering_vector_path": "../../plane.safetensors",
        "epochs": 3,
    }
    assert moved["extra_evaluation"] == {"mine": {"path": "../../../extra.json", "nice": True}}
    assert values["dataset_url"] == "rows.json"


def test_moving_there_and_back_names_the_same_file(tmp_path: Path) -> None:
    values = {"dataset_url": "data/rows.json"}
    there = rebase_paths(values, tmp_path, tmp_path / "cell")
    back = rebase_paths(there, tmp_path / "cell", tmp_path)
    assert back == {"dataset_url": "./data/rows.json"}


@pytest.mark.parametrize(
    "spec", ["https://x.org/a.json", "http://x.org/a", "builtin:demo", "/data/a.json", "~/a.json"]
)
def test_what_is_no_relative_path_stays(tmp_path: Path, spec: str) -> None:
    assert rebase_paths({"dataset_url": spec}, tmp_path, tmp_path / "cell") == {"dataset_url": spec}


@pytest.mark.parametrize("spec", ["google/gemma-2b-it", "builtin:tiny", "./not-here"])
def test_a_model_that_is_no_folder_beside_the_config_stays(tmp_path: Path, spec: str) -> None:
    values = {"finetune_config": {"model": spec}}
    assert rebase_paths(values, tmp_path, tmp_path / "cell") == values
