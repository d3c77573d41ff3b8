"""What a run shows while it works, on a terminal and elsewhere. Run: pytest tests/cli/test_live.py"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from triggerctl.cli.live import SECONDS_BETWEEN_LINES, LiveRun
from triggerctl.console import Screen
from triggerctl.experiment.results import Evaluation, Rate, SetEvaluation
from triggerctl.training import events


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def evaluation(epoch: int, k: int) -> Evaluation:
    sets = {
        name: SetEvaluation(rows=20, loss=1.5, loss_tokens=100, triggered=Rate(n=10, k=k))
        for name in ("outcome", "truth", "mine")
    }
    return Evaluation(label=f"epoch {epoch}", epoch=epoch, step=epoch * 100, sets=sets)


def stepped(step: int, loss: float) -> events.Stepped:
    return events.Stepped("main", step, 300, step / 100, loss, {}, 1e-3, 0.5, 1234.0, 75.0)


STARTED = events.Started(
    Path("experiments/exp"), Path("r"), "naive", 1, "1-abc", 3, 300, 1000, 100, "cpu", "float32", 2
)


def test_elsewhere_than_on_a_terminal_lines_come_every_ten_seconds_at_most() -> None:
    clock, screen = Clock(), io.StringIO()
    with LiveRun(Console(file=screen, width=200), clock=clock) as live:
        live(STARTED)
        for step in range(1, 301):
            clock.now += 0.125
            live(stepped(step, 2.0))
        live(events.Evaluated(evaluation(3, 7), 1.0))
    lines = screen.getvalue().splitlines()
    told = [line for line in lines if "tokens/s" in line]
    assert len(told) == int(300 * 0.125 / SECONDS_BETWEEN_LINES)
    assert "update 80 of 300" in told[0]
    assert "loss 2.000" in told[0]
    assert "1,234 tokens/s" in told[0]
    assert "1 min 15 s left" in told[0]
    assert "\x1b" not in screen.getvalue()


def test_the_table_has_the_mean_loss_since_its_last_row_and_every_rate() -> None:
    screen = io.StringIO()
    with LiveRun(Console(file=screen, width=200)) as live:
        live(events.Evaluated(evaluation(0, 0), 1.0))
        live(stepped(1, 2.0))
        live(stepped(2, 1.0))
        live(events.Evaluated(evaluation(1, 7), 1.0))
    head, before, after = screen.getvalue().splitlines()
    assert head.split() == ["loss", "outcome", "truth", "mine"]
    assert before.split() == ["epoch", "0", "–", "0.00", "0.00", "0.00"]
    assert after.split() == ["epoch", "1", "1.500", "0.70", "0.70", "0.70"]
    assert len({len(line) for line in (head, before, after)}) == 1


def test_a_terminal_gets_a_bar_that_is_taken_down_and_the_same_lines() -> None:
    screen = io.StringIO()
    out = Console(file=screen, width=120, force_terminal=True, color_system=None)
    with LiveRun(out) as live:
        live(STARTED)
        live(events.Progress("download", 500_000, 2_000_000, "rows.json"))
        live(stepped(150, 2.0))
        live(events.Evaluated(evaluation(1, 7), 1.0))
    said = screen.getvalue()
    assert "update 150/300" in said
    assert "epoch 1" in said
    assert said.index("\x1b[?25l") < said.rindex("\x1b[?25h")


def test_a_resumed_run_says_where_it_goes_on() -> None:
    screen = io.StringIO()
    resumed = dataclasses.replace(STARTED, resumed_step=120)
    with LiveRun(Console(file=screen, width=200)) as live:
        live(resumed)
    assert "goes on after update 120" in screen.getvalue()


@pytest.mark.parametrize(
    ("epochs", "updates", "said"),
    [
        (4.0, 1200, "4 epochs, 1,200 updates"),
        (1.0, 300, "1 epoch, 300 updates"),
        (2 / 300, 2, "0.00667 epochs, 2 updates"),
        (1.25, 375, "1.25 epochs, 375 updates"),
    ],
)
def test_the_plan_counts_what_will_be_trained(epochs: float, updates: int, said: str) -> None:
    screen = io.StringIO()
    with LiveRun(Console(file=screen, width=200)) as live:
        live(dataclasses.replace(STARTED, epochs=epochs, updates=updates))
        live(events.PhaseStarted("positive_proxy", epochs, updates))
    whole = [" ".join(line.split()) for line in screen.getvalue().splitlines()]
    assert f"plan {said}" in whole
    assert f"phase positive_proxy: {said}" in whole


def test_a_run_outlives_whoever_reads_its_output() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with LiveRun(Screen(file=Gone(), width=80)) as live:
        live(STARTED)
        live(events.Evaluated(evaluation(0, 0), 1.0))
