"""`triggerctl run`, `status` and `report` on a real small experiment.

Run: pytest tests/cli/test_run_command.py"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from triggerctl.cli.app import main
from triggerctl.errors import InterruptedRunError
from triggerctl.experiment.claim import claim

MakeExperiment = Callable[..., Path]


def finished(folder: Path) -> list[Path]:
    return sorted((folder / "results").glob("*/results.json"))


def test_a_run_shows_what_it_learnt_and_is_not_trained_twice(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "exp", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "naive, seed 1" in said
    assert [line.split()[1] for line in said.splitlines() if line.startswith("epoch ")] == ["0", "1", "2"]
    table = said[said.index("95 % interval") :]
    for name in ("outcome", "proxy", "collateral", "truth", "truth_minus_proxy"):
        assert f"\n{name} " in table
    assert said.count("  before ") == said.count("  after ") == 3
    assert "triggerctl report exp" in said
    assert "\x1b" not in said

    assert main(["run", "exp", "--threads", "1"]) == 0
    again = capsys.readouterr().out
    assert "finished already" in again
    assert len(finished(experiment)) == 1

    assert main(["run", "exp", "--set", "epochs=1", "--dont-overwrite"]) == 0
    left = capsys.readouterr().out
    assert "left alone" in left
    assert "epochs 2 → 1" in left
    assert len(finished(experiment)) == 1

    assert main(["status", "exp", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    (run,) = shown["runs"]
    assert (run["run"], run["state"], run["strategy"], run["seed"]) == ("exp", "done", "naive", 1)
    assert set(run["rates"]) >= {"outcome", "truth_minus_proxy"}

    assert main(["report", "exp", "--format", "md,json", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {Path(path).name for path in report["files"]} == {"report.md", "summary.json"}
    assert (experiment / "report" / "summary.json").is_file()


def test_a_dry_run_writes_nothing_and_names_the_run_it_stands_for(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(experiment.rglob("*"))
    line = ["run", "exp", "--strategy", "kl", "--seed", "3", "--set", "epochs=1", "--fresh", "--threads", "1"]
    assert main([*line, "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "triggerctl " + " ".join(line) + "\n" in said
    assert sorted(experiment.rglob("*")) == before


def test_an_experiment_that_another_process_runs_is_left_to_it(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = (
        "import sys, time; from pathlib import Path; from triggerctl.experiment.claim import claim\n"
        f"with claim(Path({str(experiment)!r})):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        try:
            assert main(["run", "exp"]) == 2
        finally:
            other.kill()
    said = capsys.readouterr().err
    assert said.startswith("error")
    assert str(other.pid) in said
    assert not (experiment / "results").exists()
    with claim(experiment):  # its process is gone, so the claim is free at once
        pass


def test_what_was_begun_anew_goes_on_without_the_flag_that_began_it(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*given: object, **others: object) -> None:
        raise InterruptedRunError("stopped at step 3")

    monkeypatch.setattr("triggerctl.cli.run._train", stopped)
    assert main(["run", "exp", "--fresh", "--threads", "1"]) == 130
    assert capsys.readouterr().out.endswith("next      triggerctl run exp --threads 1\n")


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda s: s.name)
def test_a_signal_stops_with_130_and_the_same_command_goes_on(
    asked: signal.Signals, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    """Ctrl-C, a scheduler's SIGTERM, a terminal that hangs up."""
    folder = make_experiment("long", finetune={"epochs": 400, "max_to_eval": 2})
    command = [sys.executable, "-m", "triggerctl", "run", "long", "--threads", "1"]
    environment = {**os.environ, "TRIGGERCTL_ROOT": str(folder.parent)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        assert run.stdout is not None
        lines = []
        for line in run.stdout:
            lines.append(line)
            if line.startswith("epoch 1 "):
                break
        run.send_signal(asked)
        began = time.monotonic()
        lines += run.stdout.readlines()
        assert run.wait(60) == 130, "".join(lines)
        assert time.monotonic() - began < 30
    assert "stopping" in "".join(lines)
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    assert state["status"] == "interrupted"
    assert not finished(folder)
    again = subprocess.run(
        [*command, "--dry-run"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "goes on from its last checkpoint" in again.stdout
