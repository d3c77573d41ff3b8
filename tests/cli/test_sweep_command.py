"""What `triggerctl sweep` ends with. Run: pytest tests/cli/test_sweep_command.py"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from triggerctl import console
from triggerctl.cli import sweep
from triggerctl.cli.options import Globals
from triggerctl.cli.sweep_screen import JsonScreen, OutlivingScreen, SweepScreen
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.sweep import run
from triggerctl.sweep.cell import CellOutcome, Outcome

FOLDER = ExperimentFolder(Path("exp"))
PLANNED: Any = SimpleNamespace(cell="exp", folder=FOLDER, hash="1-abc", action=SimpleNamespace(value="run"))
SWEEP: Any = SimpleNamespace(planned=[PLANNED], name=lambda cell: "seed_1")


def ends_with(outcomes: Sequence[Outcome], monkeypatch: pytest.MonkeyPatch, *, as_json: bool = False) -> int:
    """The exit code of a sweep whose runs end so."""

    def run_sweep(*given: object, **options: object) -> list[CellOutcome]:
        return [CellOutcome(FOLDER, outcome, "") for outcome in outcomes]

    monkeypatch.setattr(run, "run_sweep", run_sweep)
    nothing: Any = SimpleNamespace(planned=[])
    globals_ = Globals(root=None, debug=False, line=("triggerctl", "sweep", "exp"))
    return sweep._run(nothing, nothing, nothing, globals_, "exp", fail_fast=False, as_json=as_json)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([Outcome.DONE, Outcome.SKIPPED], 0),
        ([Outcome.DONE, Outcome.INTERRUPTED], 130),
        ([Outcome.FAILED, Outcome.INTERRUPTED], 1),
    ],
)
def test_the_exit_code_tells_whether_all_was_done(
    outcomes: list[Outcome], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends_with(outcomes, monkeypatch) == code
    assert ("triggerctl report exp" in capsys.readouterr().out) == (code == 0)


class _Gone(io.StringIO):
    """A pipe that nobody reads from any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("as_json", [False, True])
def test_a_sweep_outlives_whoever_reads_its_output(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", _Gone())
    monkeypatch.setattr(console, "out", console.Screen(file=_Gone(), width=80))
    shown = JsonScreen(SWEEP) if as_json else SweepScreen(console.out, SWEEP)
    with OutlivingScreen(shown) as screen:
        screen.began(PLANNED)
        screen.note("waiting")
        screen.tick()
        screen.ended(PLANNED, CellOutcome(FOLDER, Outcome.DONE, ""))
    assert ends_with([Outcome.INTERRUPTED], monkeypatch, as_json=as_json) == 130


def test_what_a_command_ended_with_stays_though_its_last_words_are_lost() -> None:
    program = (
        "import sys; from triggerctl.cli import app\n"
        "def ended(*given, **options):\n    print('last words'); return 130\n"
        "app.get_command = lambda program: type('Ended', (), {'main': ended})()\n"
        "sys.exit(app.main(['sweep', 'exp']))"
    )
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (130, "")
