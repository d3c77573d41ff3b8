"""A sweep by worker processes, on real small runs. Run: pytest tests/sweep/test_run.py"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from triggerctl.cli.app import main

MakeExperiment = Callable[..., Path]
LINE = "sweep exp --seeds 1 2 --strategies naive,kl --threads 1"


@pytest.fixture
def experiment(make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_experiment("exp", finetune={"epochs": 1, "max_to_eval": 4})
    monkeypatch.chdir(folder.parents[1])
    monkeypatch.delenv("TRIGGERCTL_ROOT", raising=False)
    return folder


def finished(folder: Path) -> list[str]:
    found = folder.rglob("results.json")
    return sorted(path.parents[2].relative_to(folder).as_posix() for path in found)


def dry_run(line: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert main([*line.split(), "--dry-run", "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def change(folder: Path, **finetune: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["finetune_config"].update(finetune)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


CELLS = [
    "proxy_strategy_kl_divergence/seed_1",
    "proxy_strategy_kl_divergence/seed_2",
    "proxy_strategy_naive/seed_1",
    "proxy_strategy_naive/seed_2",
]


def test_the_same_command_does_what_is_missing_and_keeps_a_record(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(experiment.rglob("*"))
    planned = dry_run(LINE, capsys)
    assert [row["action"] for row in planned] == ["run"] * 4
    assert sorted(row["folder"] for row in planned) == CELLS
    assert len({row["hash"] for row in planned}) == 4
    assert sorted(experiment.rglob("*")) == before

    assert main(LINE.split()) == 0
    said = capsys.readouterr().out
    assert finished(experiment) == CELLS
    assert "4 of 4" in said
    assert "triggerctl report exp" in said
    (record,) = (experiment / "sweeps").glob("*.json")
    told = json.loads(record.read_text(encoding="utf-8"))
    assert told["command"] == ["triggerctl", *LINE.split()]
    grid = {"seeds": [1, 2], "strategies": ["naive", "kl_divergence"], "parameters": {}}
    assert told["grid"] == grid
    assert sorted(cell["folder"] for cell in told["cells"]) == CELLS
    assert {cell["outcome"] for cell in told["cells"]} == {"done"}
    assert {cell["hash"] for cell in told["cells"]} == {row["hash"] for row in planned}

    shutil.rmtree(experiment / CELLS[0] / "results")
    (experiment / CELLS[0] / "state.json").unlink()
    assert [row["action"] for row in dry_run(LINE, capsys)].count("run") == 1
    assert main(LINE.split()) == 0
    capsys.readouterr()
    assert finished(experiment) == CELLS
    assert len(list((experiment / "sweeps").glob("*.json"))) == 2

    # What the cell's own config says is the same run.
    capsys.readouterr()
    assert main(["run", f"exp/{CELLS[1]}", "--dry-run"]) == 0
    assert "finished already" in capsys.readouterr().out

    # A changed parent is trained beside what is there, or with --dont-overwrite named and left alone.
    own = (experiment / CELLS[2] / "config.json").read_text(encoding="utf-8")
    change(experiment, learning_rate=0.02)
    left = dry_run(f"{LINE} --dont-overwrite", capsys)
    assert {row["action"] for row in left} == {"blocked"}
    assert all("(learning_rate 0.01 → 0.02)" in row["reason"] for row in left)
    assert main(f"{LINE} --dont-overwrite".split()) == 0
    capsys.readouterr()
    assert (experiment / CELLS[2] / "config.json").read_text(encoding="utf-8") == own
    assert {row["action"] for row in dry_run(LINE, capsys)} == {"run"}
    assert finished(experiment) == CELLS


def test_a_cell_without_results_follows_its_parent(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = experiment / "seed_1" / "config.json"
    cell.parent.mkdir()
    cell.write_text(json.dumps({"seed": 1, "dataset_url": "builtin:gone"}), encoding="utf-8")
    assert main(["sweep", "exp", "--seeds", "1", "--threads", "1"]) == 0
    values = json.loads(cell.read_text(encoding="utf-8"))
    assert values["dataset_url"] == "../../../rows.json"
    assert finished(experiment) == ["seed_1"]


def test_cells_that_differ_only_in_what_their_strategy_ignores_are_one(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (experiment / "sweep.json").write_text('{"naive": [{"beta_kl": 1}, {"beta_kl": 2}]}', encoding="utf-8")
    planned = dry_run("sweep exp --seeds 1", capsys)
    assert [row["action"] for row in planned] == ["run", "same"]
    assert planned[1]["reason"].endswith("proxy_strategy_naive_beta_kl-1/seed_1")


def test_nothing_starts_when_one_cell_is_wrong(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (experiment / "sweep.json").write_text('{"naive": [{}], "kl": [{"beta_kl": -1}]}', encoding="utf-8")
    before = sorted(experiment.rglob("*"))
    assert main(["sweep", "exp", "--seeds", "1", "2"]) == 2
    said = capsys.readouterr().err
    assert "beta_kl" in said
    assert "sweep.json:1" in said
    assert sorted(experiment.rglob("*")) == before


@pytest.mark.parametrize("fail_fast", [False, True])
def test_a_sweep_goes_on_past_a_run_that_fails_unless_told_not_to(
    fail_fast: bool, experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A results path that is a file makes the first run fail once it starts."""
    (experiment / "seed_1").mkdir()
    (experiment / "seed_1" / "results").write_text("in the way", encoding="utf-8")
    line = ["sweep", "exp", "--seeds", "1", "2", "--jobs", "1", *(["--fail-fast"] if fail_fast else [])]
    assert main(line) == 1
    said = capsys.readouterr()
    assert "error" in said.err
    assert finished(experiment) == ([] if fail_fast else ["seed_2"])
    (record,) = (experiment / "sweeps").glob("*.json")
    outcomes = [cell["outcome"] for cell in json.loads(record.read_text(encoding="utf-8"))["cells"]]
    assert outcomes == ["failed", None if fail_fast else "done"]
    # It failed before it could say so itself; who looks later must learn of it all the same.
    assert main(["status", "exp", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]["runs"][0]
    assert (first["run"], first["state"]) == ("seed_1", "failed")
    assert "cannot create the folder" in first["error"]


def test_ctrl_c_ends_the_sweep_with_130_and_the_run_can_go_on(
    make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    folder = make_experiment("long", finetune={"epochs": 400, "max_to_eval": 2})
    command = [sys.executable, "-m", "triggerctl", "sweep", "long", "--seeds", "1", "2", "--jobs", "1"]
    environment = {**os.environ, "TRIGGERCTL_ROOT": str(folder.parent)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as sweep:
        assert sweep.stdout is not None
        said = []
        for line in sweep.stdout:
            said.append(line)
            if line.startswith("epoch 1 "):
                break
        sweep.send_signal(signal.SIGINT)
        said += sweep.stdout.readlines()
        assert sweep.wait(60) == 130, "".join(said)
    state = json.loads((folder / "seed_1" / "state.json").read_text(encoding="utf-8"))
    assert state["status"] == "interrupted"
    (record,) = (folder / "sweeps").glob("*.json")
    outcomes = [cell["outcome"] for cell in json.loads(record.read_text(encoding="utf-8"))["cells"]]
    assert outcomes == ["interrupted", None]


def test_a_program_can_read_along(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "exp", "--seeds", "1", "--json"]) == 0
    first = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in first] == ["began", "ended"]
    assert (first[1]["run"], first[1]["outcome"]) == ("seed_1", "done")
    assert Path(first[1]["results"], "results.json").is_file()
    assert set(first[1]["rates"]) >= {"outcome", "proxy", "collateral", "truth"}
    assert main(["sweep", "exp", "--seeds", "1", "--json"]) == 0
    (again,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (again["event"], again["outcome"], again["hash"]) == ("ended", "skipped", first[1]["hash"])
    assert "finished already" in again["reason"]
