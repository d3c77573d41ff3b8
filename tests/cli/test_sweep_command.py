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
from triggerctl.cli import dry_run, sweep
from triggerctl.cli.options import Globals
from triggerctl.cli.sweep_screen import JsonScreen, OutlivingScreen, SweepScreen
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.sweep import estimate, run
from triggerctl.sweep.cell import CellOutcome, Outcome
from triggerctl.sweep.estimate import Estimate

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


def dry_run_of(
    *runs: tuple[str, str, str, str | None],
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    """The lines that a dry run prints of these runs: name, action, reason, and which run each is the same
    as."""
    planned = [
        SimpleNamespace(
            cell=name,
            hash=f"1-{place:018}",
            action=SimpleNamespace(value=action),
            reason=reason,
            same_as=same_as,
            is_to_train=action == "run" and same_as is None,
            warnings=(),
        )
        for place, (name, action, reason, same_as) in enumerate(runs)
    ]
    swept: Any = SimpleNamespace(planned=planned, name=lambda cell: cell)
    costs = {each.hash: Estimate(90.0, 250_000_000) for each in planned}
    monkeypatch.setattr(estimate, "estimates", lambda *given, **named: costs)
    monkeypatch.setattr(console, "out", console.Screen(width=width))
    globals_ = Globals(root=None, debug=False, line=("triggerctl", "sweep", "exp", "--dry-run"))
    dry_run.show_dry_run(swept, SimpleNamespace(device="cpu"), globals_, as_json=False)  # type: ignore[arg-type]
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


FINISHED = "finished already with this very configuration, in 20260101_00000{}"


def test_a_dry_run_has_a_line_for_each_run_and_each_reason_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = dry_run_of(
        ("proxy_strategy_kl_divergence_beta_kl-0.5/seed_1", "skip", FINISHED.format(1), None),
        ("proxy_strategy_kl_divergence_beta_kl-0.5/seed_5", "skip", FINISHED.format(2), None),
        ("proxy_strategy_naive_beta_kl-0.5/seed_1", "run", "not trained yet", None),
        ("proxy_strategy_naive_beta_kl-1/seed_1", "run", "", "proxy_strategy_naive_beta_kl-0.5/seed_1"),
        width=80,
        monkeypatch=monkeypatch,
        capsys=capsys,
    )
    assert lines[0].split() == ["run", "now", "about", "memory"]
    assert [line.split()[1:] for line in lines[2:6]] == [
        ["done", "–", "–"],
        ["done", "–", "–"],
        ["would", "run", "1", "min", "30", "s", "250.0", "MB"],
        ["same", "–", "–"],
    ]
    assert lines[6:-2] == [
        "",
        "done      finished already with this very configuration",
        "run       not trained yet",
        "same      the same run as proxy_strategy_naive_beta_kl-0.5/seed_1",
        "about     1 min 30 s for all, one after the other on the whole machine",
    ]
    assert max(map(len, lines)) <= 80


def test_reasons_that_differ_say_whose_they_are_and_a_wide_screen_has_the_hash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = "trained beside 20260101_00000{}, results of another configuration (epochs 1 → 2)"
    lines = dry_run_of(
        ("seed_1", "run", beside.format(1), None),
        ("seed_2", "run", beside.format(2), None),
        ("seed_3", "run", "not trained yet", None),
        ("seed_4", "skip", FINISHED.format(4), None),
        width=160,
        monkeypatch=monkeypatch,
        capsys=capsys,
    )
    assert lines[2].split()[-1] == "1-0000000000"
    shared = "trained beside …, results of another configuration (epochs 1 → 2)"
    assert [line for line in lines if line.startswith(("run  ", "done"))][1:] == [
        f"run       seed_1, seed_2: {shared}",
        "run       seed_3: not trained yet",
        f"done      {FINISHED.format(4)}",
    ]
