"""`triggerctl status`, as typed. Run: pytest tests/cli/test_status_command.py"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
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


def test_the_sweep_of_a_run_that_stopped_is_what_to_type_next(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run exp` would train something else."""
    for seed, status in ((1, "done"), (5, "interrupted")):
        folder = experiment / "proxy_strategy_naive" / f"seed_{seed}"
        folder.mkdir(parents=True)
        state = RunState.model_validate({"status": status, "strategy": "naive", "seed": seed})
        write_state(folder / "state.json", state)
    (experiment / "sweeps").mkdir()
    line = ["triggerctl", "sweep", "exp", "--seeds", "1", "5", "--strategies", "naive"]
    for name, content in (("20260101_000000", {"command": line}), ("20260102_000000", {"cells": []})):
        (experiment / "sweeps" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    assert main(["status", "exp"]) == 0
    assert [text.split() for text in capsys.readouterr().out.splitlines()[-2:]] == [
        ["next", "triggerctl", "report", "exp"],
        line,
    ]


def test_a_run_whose_results_are_gone_is_pending(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run` trains it again."""
    folder = experiment / "seed_1"
    folder.mkdir()
    write_state(folder / "state.json", RunState(status="done", seed=1, results="20260101_000000"))
    assert main(["status", "exp", "--json"]) == 0
    states = {run["run"]: run["state"] for run in json.loads(capsys.readouterr().out)[0]["runs"]}
    assert states["seed_1"] == "pending"


def test_an_error_that_the_log_ends_with_is_told_once(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = experiment / "seed_1"
    folder.mkdir()
    write_state(folder / "state.json", RunState(status="failed", seed=1, error="the run has diverged"))
    (folder / "run.log").write_text("INFO phase main\nERROR the run has diverged\n", encoding="utf-8")
    assert main(["status", "exp"]) == 0
    said = capsys.readouterr().out
    assert said.count("the run has diverged") == 1
    assert "INFO phase main" in said


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


def left(folder: Path, name: str = "20260101_000000") -> None:
    """A finished run, as the study leaves it."""
    results = folder / "results" / name
    results.mkdir(parents=True)
    document = {
        "experiment_config": {"proxy_strategy": "naive", "seed": 1},
        "train_losses": [0.5],
        "outcome_losses": [1.0, 0.5],
        "outcome_trigger_response_percent": [0.0, 1.0],
    }
    (results / "results.json").write_text(json.dumps(document), encoding="utf-8")


def state_of(folder: Path, status: str, **values: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = RunState(strategy="naive", seed=1, epochs=4.0).model_copy(update={"status": status, **values})
    write_state(folder / "state.json", made.of(this_process()))


def test_results_that_cannot_be_read_are_named(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left(experiment / "seed_1")
    left(experiment / "seed_2")
    broken = experiment / "seed_2" / "results" / "20260101_000000" / "results.json"
    broken.write_text("{", encoding="utf-8")
    assert main(["status", "exp"]) == 0
    said = capsys.readouterr().out
    assert "1 done, 1 failed" in said
    assert "experiments/exp/seed_2/results/20260101_000000/results.json" in said


def test_of_very_many_runs_the_failed_and_the_newest_are_shown_and_json_has_all(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(250):
        left(experiment / f"seed_{seed}", f"20260101_{seed:06d}")
    for seed in (7, 8):
        state_of(experiment / f"seed_{seed}", "failed", error="out of memory", results="later")
    assert main(["status", "exp"]) == 0
    said = capsys.readouterr().out
    assert "248 done, 2 failed" in said or "248 done" in said
    shown = [int(seed) for seed in re.findall(r"^ +seed_(\d+) ", said, flags=re.MULTILINE)]
    assert set(shown[:2]) == {7, 8}
    assert shown[2:52] == list(range(249, 199, -1))
    assert "… 198 done; --json has every run" in said

    assert main(["status", "exp", "--json"]) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert len(document["runs"]) == 250


def test_many_experiments_stand_in_one_table(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(20):
        left(experiment.parent / f"other_{number}" / "seed_1")
        left(experiment.parent / f"alone_{number}")
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "41 experiments  40 done, 1 pending" in said
    assert said.count("strategy") == 1
    assert re.search(r"^ +other_19/seed_1 +naive", said, flags=re.MULTILINE)
    assert re.search(r"^ +alone_3 +naive", said, flags=re.MULTILINE)


class Looks:
    """Stands for the seconds between two looks: what happens meanwhile, and Ctrl-C after the last."""

    def __init__(self, *meanwhile: Callable[[], None]) -> None:
        self.meanwhile = list(meanwhile)

    def __call__(self, seconds: float) -> None:
        if not self.meanwhile:
            raise KeyboardInterrupt
        self.meanwhile.pop(0)()


def test_watching_without_a_terminal_prints_a_line_for_each_run_that_changed(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = experiment / "seed_1", experiment / "seed_2"
    state_of(one, "running", epoch=1.0)
    state_of(two, "running", epoch=1.0)
    progress = Progress(loss=1.25, rates={"outcome": 0.5}, seconds_left=12.0)
    looks = Looks(
        lambda: state_of(one, "running", epoch=2.0, progress=progress),
        lambda: None,
        lambda: state_of(two, "failed", error="out of memory"),
    )
    with claim(one), claim(two):
        monkeypatch.setattr(time, "sleep", looks)
        assert main(["status", "exp", "--watch"]) == 130
    table, _, changes = capsys.readouterr().out.partition("seed_2")
    assert "2 running" in table
    first, second = changes.splitlines()[1:]
    assert first[8:] == "  exp/seed_1  running  epoch 2/4  loss 1.250  outcome 0.50  12 s left"
    assert second[8:] == "  exp/seed_2  failed  epoch 0/4  out of memory"


def test_watching_as_json_prints_a_document_a_line_for_each_change(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = experiment / "seed_1"
    state_of(one, "running", epoch=1.0)
    state_of(experiment / "seed_2", "done")
    looks = Looks(lambda: None, lambda: state_of(one, "interrupted", epoch=3.0), lambda: gone(one))
    with claim(one):
        monkeypatch.setattr(time, "sleep", looks)
        assert main(["status", "exp", "--watch", "--json"]) == 130
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["experiment"], each["run"], each["state"], each["epoch"]) for each in documents] == [
        ("exp", "seed_1", "running", 1.0),
        ("exp", "seed_2", "done", 0.0),
        ("exp", "seed_1", "interrupted", 3.0),
        ("exp", "seed_1", "gone", 3.0),
    ]


def gone(run: Path) -> None:
    (run / "state.json").unlink()


def test_watching_on_a_terminal_draws_the_table_anew(experiment: Path) -> None:
    state_of(experiment / "seed_1", "running", epoch=1.0)
    master, slave = pty.openpty()
    words = [sys.executable, "-m", "triggerctl", "status", "exp", "--watch"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    # Its process is this one, which lives: the run stays running until the file says otherwise.
    process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    seen = ""

    def read_until(words: str) -> None:
        nonlocal seen
        while words not in seen:
            readable, _, _ = select.select([master], [], [], 60)
            assert readable, seen
            seen += os.read(master, 65536).decode()

    try:
        with claim(experiment / "seed_1"):
            read_until("1 running")
        state_of(experiment / "seed_1", "failed", error="out of memory")
        read_until("1 failed")
    finally:
        process.terminate()
        process.wait(30)
        os.close(master)
    assert "out of memory" in seen


def test_what_comes_next_while_a_run_is_under_way_is_to_watch_it(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run exp` would train the experiment's own configuration beside the sweep."""
    folder = experiment / "proxy_strategy_naive" / "seed_1"
    folder.mkdir(parents=True)
    (experiment / "sweeps").mkdir()
    line = ["triggerctl", "sweep", "exp", "--seeds", "1", "--strategies", "naive"]
    (experiment / "sweeps" / "20260101_000000.json").write_text(json.dumps({"command": line}))
    running = RunState(status="running", strategy="naive", seed=1).of(this_process())
    write_state(folder / "state.json", running)
    with claim(folder):
        assert main(["status", "exp"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == [
        *("next", "triggerctl", "status", "exp", "--watch")
    ]


def test_a_folder_whose_name_is_not_utf_8_is_listed_as_json(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = experiment / os.fsdecode(b"seed_\xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    write_state(folder / "state.json", RunState(status="failed", seed=1, error="no memory"))
    assert main(["status", "exp", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert "no memory" in [run["error"] for run in shown["runs"]]
