"""`triggerctl status`, as typed. Run: pytest tests/cli/test_status_command.py"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from triggerctl.cli.app import main
from triggerctl.experiment.claim import claim
from triggerctl.experiment.process import this_process
from triggerctl.experiment.state import Progress, RunState, write_state

MakeExperiment = Callable[..., Path]
SHARED = Path(__file__).parents[2].parent / "shared"


def test_states_are_told_apart_and_a_failure_shows_the_last_it_said(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(loss=1.25, rates={"outcome": 0.5}, seconds_left=12.0)
    running = RunState(status="running", strategy="naive", seed=1, epoch=1, epochs=4, progress=progress)
    here = running.of(this_process())
    states = {
        1: here,
        2: here.model_copy(update={"pid": 2**22 + 1}),
        3: here.model_copy(update={"status": "failed", "error": "out of memory"}),
        4: here.model_copy(update={"status": "interrupted"}),
    }
    for seed, state in states.items():
        folder = experiment / f"seed_{seed}"
        folder.mkdir()
        write_state(folder / "state.json", state)
        (folder / "run.log").write_text("one\ntwo\nthree\nfour\n", encoding="utf-8")

    with claim(experiment / "seed_1"):
        assert main(["status", "exp", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert [run["state"] for run in shown["runs"]] == ["running", "stale", "failed", "interrupted"]
    first, _, failed, _ = shown["runs"]
    assert (first["epoch"], first["epochs"], first["loss"], first["rates"]) == (1, 4, 1.25, {"outcome": 0.5})
    assert failed["log"] == ["two", "three", "four"]

    with claim(experiment / "seed_1"):
        assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "1 running, 1 stale, 1 failed, 1 interrupted" in said
    assert "out of memory" in said
    assert "its process is gone" in said


def test_without_experiments_it_says_how_to_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIGGERCTL_ROOT", raising=False)
    assert main(["status"]) == 0
    assert "triggerctl init demo" in capsys.readouterr().out


def test_a_run_still_to_come_shows_what_its_config_asks_for(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "exp", "--json"]) == 0
    ((run,),) = [shown["runs"] for shown in json.loads(capsys.readouterr().out)]
    assert (run["run"], run["state"], run["strategy"], run["seed"]) == ("exp", "pending", "naive", 1)


@pytest.mark.skipif(not (SHARED / "published").is_dir(), reason="the study's published folders are not here")
def test_the_studys_folders_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    folder = SHARED / "published" / "experiments" / "proxy_methods_emotions"
    assert main(["status", str(folder), "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["runs"]
    assert {run["state"] for run in shown["runs"]} == {"done"}
    assert all(run["rates"]["outcome"] is not None for run in shown["runs"])
