"""Tables of runs, however many and on however small a screen. Run: pytest tests/cli/test_runs_table.py"""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, Group, RenderableType

from triggerctl import console
from triggerctl.cli.runs_table import counted, failures, live_runs, pick, runs_table, summary
from triggerctl.experiment.overview import RunView


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Console:
    """A terminal of 100 × 24."""
    made = Console(file=io.StringIO(), force_terminal=True, width=100, height=24, color_system=None)
    monkeypatch.setattr(console, "out", made)
    return made


def drawn(screen: Console, content: RenderableType) -> list[str]:
    with screen.capture() as capture:
        screen.print(content)
    return capture.get().splitlines()


def run(number: int, state: str = "done") -> RunView:
    """The first runs are the oldest ones."""
    view = RunView(f"proxy_strategy_kl_divergence_beta_kl-{number}/seed_1", Path("x"), state)
    view = replace(view, strategy="kl_divergence", seed=1, loss=0.5, epoch=2.0, epochs=4.0)
    if state == "done":
        return replace(view, rates={"outcome": 0.97}, finished=1, newest=f"20260101_{number:06d}")
    if state == "running":
        return replace(view, seconds=10.0, seconds_left=75.0)
    if state == "failed":
        return replace(view, error="out of memory", log=("the last line",))
    return view


def test_any_state_word_may_be_shown(screen: Console) -> None:
    words = ["skipped", "kept", "busy", "same", "done", "failed", "stale", "pending", "not reached"]
    text = "\n".join(drawn(screen, runs_table([replace(run(1), state=word) for word in words])))
    assert [word for word in words if word not in text] == []


def test_the_time_left_is_a_column_where_something_runs(screen: Console) -> None:
    screen.width = 120
    assert not re.search(r"\bleft\b", "\n".join(drawn(screen, runs_table([run(1), run(2, "pending")]))))
    lines = drawn(screen, runs_table([run(1), run(2, "running")]))
    assert re.search(r"\bleft\b", "\n".join(lines))
    assert lines[-1].rstrip().endswith("1 min 15 s")


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_screen_and_each_names_its_state(screen: Console, width: int) -> None:
    screen.width = width
    lines = drawn(screen, console.indented(runs_table([run(1), run(2, "running"), run(3, "failed")])))
    assert max(map(len, lines)) <= width
    for word in ("done", "running", "failed"):
        assert word in "\n".join(lines)


def test_the_summary_counts_and_says_how_long_all_will_take() -> None:
    runs = [run(1), run(2), run(3, "running"), run(4, "failed")]
    assert counted(runs) == "2 done, 1 running, 1 failed"
    assert summary(runs).plain == "2 done, 1 running, 1 failed; about 1 min 15 s left"
    assert summary([]).plain == "no runs"


def test_where_not_all_fit_those_that_run_and_fail_come_first_then_the_newest() -> None:
    runs = [run(1), run(2, "pending"), run(3), run(4, "failed"), run(5), run(6, "running")]
    shown, rest = pick(runs, 10)
    assert (shown, rest) == (runs, [])
    shown, rest = pick(runs, 4)
    assert [view.state for view in shown] == ["running", "failed", "done", "done"]
    assert [view.newest for view in shown[2:]] == ["20260101_000005", "20260101_000003"]
    assert counted(rest) == "1 done, 1 pending"
    shown, _ = pick(runs, 5, newest=1)
    assert [view.name for view in shown] == [runs[5].name, runs[3].name, runs[4].name]


def test_of_very_many_failures_the_first_are_told(screen: Console) -> None:
    lines = drawn(screen, Group(*failures([run(number, "failed") for number in range(30)], most=3)))
    text = "\n".join(lines)
    assert text.count("out of memory") == text.count("the last line") == 3
    assert "27 more failed" in text


@pytest.mark.parametrize("width", [50, 80, 160])
@pytest.mark.parametrize("height", [6, 12, 24, 60])
def test_a_live_view_is_never_higher_than_the_screen(screen: Console, width: int, height: int) -> None:
    screen.width, screen.height = width, height
    states = ["done"] * 34 + ["running"] * 2 + ["failed"] * 3 + ["pending"] * 120
    runs = [run(number, state) for number, state in enumerate(states)]
    lines = drawn(screen, live_runs(runs, title="demo"))
    assert len(lines) <= height
    text = " ".join("\n".join(lines).split())
    assert "34 done, 2 running, 3 failed, 120 pending; about" in text
    if height >= 24 and width >= 80:
        assert lines[0].strip() == "demo"
        assert sum("running" in line for line in lines[:-1]) == 2
        assert sum("failed" in line for line in lines[:-1]) == 3
        assert len(lines) > height - 4, "no room is wasted"
        assert "out of memory" in text
        assert re.search(r"… .*120 pending", text)


def test_a_live_view_that_fits_has_every_run_in_its_order(screen: Console) -> None:
    screen.width = 120
    runs = [run(1, "pending"), run(2), run(3, "running")]
    lines = drawn(screen, live_runs(runs))
    places = [
        next(at for at, line in enumerate(lines) if view.name.removeprefix("proxy_strategy_") in line)
        for view in runs
    ]
    assert places == sorted(places)
    assert "…" not in "\n".join(lines)


def test_on_a_narrow_screen_the_epoch_of_what_runs_outlasts_rates(screen: Console) -> None:
    screen.width = 70
    head = " ".join(drawn(screen, runs_table([run(1)], short_names=True))[:2])
    assert "collateral" in head
    assert "epoch" not in head
    screen.width = 84
    head = " ".join(drawn(screen, runs_table([run(1), run(2, "running")], short_names=True))[:2])
    assert "collateral" not in head
    assert "epoch" in head
