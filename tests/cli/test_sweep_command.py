"""What `triggerctl sweep` ends with. Run: pytest tests/cli/test_sweep_command.py"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from triggerctl.cli import sweep
from triggerctl.cli.options import Globals
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.sweep import run
from triggerctl.sweep.cell import CellOutcome, Outcome

FOLDER = ExperimentFolder(Path("exp"))


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
