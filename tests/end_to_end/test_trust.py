"""What a run writes, and where: nothing of a token, and nothing out of its experiment.
Run: pytest tests/end_to_end/test_trust.py"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from engine import planned, run

from triggerctl.config.load import load_config
from triggerctl.errors import InputError
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.training.plan import plan_run

MakeExperiment = Callable[..., Path]
TOKENS = {
    "HF_TOKEN": "hf_plantedplantedplanted",
    "HUGGING_FACE_HUB_TOKEN": "hf_another_planted",
    "WANDB_API_KEY": "wandb_planted",
    "AWS_SECRET_ACCESS_KEY": "aws_planted",
}
IN_THE_ADDRESS = ("planted_password", "planted_query")
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def rows_address(tmp_path: Path) -> Iterator[str]:
    """Where a server of this machine gives the rows, with a name, a password and a token in it."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *given: object) -> None:
            super().__init__(*given, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    password, query = IN_THE_ADDRESS
    yield f"http://me:{password}@127.0.0.1:{server.server_port}/rows.json?token={query}"
    server.shutdown()
    server.server_close()
    thread.join()


def planted(folder: Path, *, but: frozenset[Path] = frozenset()) -> list[str]:
    """The files that hold a token."""
    secrets = [*TOKENS.values(), *IN_THE_ADDRESS]
    return [
        f"{path.name}: {secret}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path not in but
        for secret in secrets
        if secret.encode() in path.read_bytes()
    ]


@pytest.mark.slow
def test_tokens_are_in_nothing_that_a_run_writes_or_says(
    make_experiment: MakeExperiment, tmp_path: Path, rows_address: str
) -> None:
    """In an experiment that ends well, in one whose model the hub won't give, and in one whose data is not
    there."""
    tiny = {"epochs": 1, "max_to_eval": 2}
    good = make_experiment("good", dataset_url=rows_address, finetune=tiny)
    gated = make_experiment("gated", dataset_url=rows_address, finetune={**tiny, "model": "owner/gated"})
    no_data = make_experiment("no_data", dataset_url=rows_address.replace("rows.json", "none.json"))
    variables = {
        **os.environ,
        **TOKENS,
        "PYTHONPATH": str(REPOSITORY),
        "HF_HUB_OFFLINE": "1",
        "TRIGGERCTL_CACHE": str(tmp_path / "cache"),
        "TRIGGERCTL_ROOT": str(good.parent),
    }
    said = ""
    for words, code in (
        (["run", "good"], 0),
        (["--debug", "run", "gated"], 2),
        (["run", "no_data"], 2),
        (["status", "good", "--json"], 0),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "triggerctl", *words],
            env=variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        said += done.stdout + done.stderr
    configs = frozenset(folder / "config.json" for folder in (good, gated, no_data))
    assert list(good.glob("results/*/environment.json"))
    assert planted(tmp_path, but=configs) == []
    assert [secret for secret in (*TOKENS.values(), *IN_THE_ADDRESS) if secret in said] == []


@pytest.mark.parametrize(
    "options",
    [
        {"save_model_locally": True, "output_dir": "../../elsewhere"},
        {"save_model_locally": True, "output_dir": "/tmp/elsewhere"},
        {"save_model_locally": True, "output_dir": "CON"},
        {"steering_vector_path": "../../plane.safetensors"},
    ],
)
def test_a_configuration_that_writes_elsewhere_is_refused_before_anything_is_written(
    make_experiment: MakeExperiment, options: dict[str, object]
) -> None:
    folder = make_experiment(
        proxy_strategy="steering_weights", finetune={"positive_proxy": "proxy", **options}
    )
    with pytest.raises(InputError) as caught:
        planned(folder)
    assert str(caught.value.problems[0].where).startswith("finetune_config.")
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_a_whole_model_is_saved_where_the_configuration_says(make_experiment: MakeExperiment) -> None:
    options = {"epochs": 0, "max_to_eval": 1, "save_model_locally": True, "output_dir": "kept/model"}
    folder = make_experiment(finetune=options)
    run(folder)
    assert (folder / "kept" / "model" / "model.safetensors").is_file()


def test_a_state_that_names_a_folder_elsewhere_leads_no_run_there(make_experiment: MakeExperiment) -> None:
    folder = make_experiment(finetune={"epochs": 0, "max_to_eval": 1})
    state = {"status": "interrupted", "hash": planned(folder).hash, "results": "../../elsewhere"}
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(InputError, match=r"state\.json is damaged"):
        run(folder)
    assert not (folder.parent / "elsewhere").exists()


def test_code_that_comes_with_a_model_is_told_in_the_plan(make_experiment: MakeExperiment) -> None:
    assert not any("trust_remote_code" in warning for warning in planned(make_experiment("no")).warnings)
    folder = make_experiment("yes", finetune={"trust_remote_code": True})
    assert any("Python code" in warning for warning in planned(folder).warnings)


def test_a_cell_belongs_to_the_experiment_that_was_swept(make_experiment: MakeExperiment) -> None:
    place = ExperimentFolder(make_experiment())
    loaded = load_config(place.config)
    for run_folder in (place, place.seed(1), place.cell("naive", {}), place.cell("naive", {}).seed(1)):
        assert run_folder.experiment == place.path
        assert plan_run(run_folder, loaded).folder == run_folder
    assert ExperimentFolder(place.path.parent / "seed_3").experiment.name == "seed_3"
