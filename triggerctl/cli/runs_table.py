"""Runs in a table, however many they are and however small the screen: for `status` and for a sweep's live
view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from triggerctl import console
from triggerctl.cli.rates import HEADS, cells, state_text
from triggerctl.experiment.cell_names import CELL_PREFIX
from triggerctl.experiment.overview import RunView, time_left

MOST_ROWS = 200
NEWEST_ROWS = 50
"""A longer table helps nobody, and takes seconds to lay out. One that is cut shows so many of the runs that
neither run nor failed; --json has every run."""

MOST_FAILURES = 20
NARROW = 60
"""Columns of a screen on which even a name in pieces needs the room of rates."""

_FIRST = {"running": 0, "starting": 0, "busy": 0, "failed": 1, "stale": 1, "interrupted": 1, "pending": 3}
"""Who is shown where there is no room for all; all other words come in between."""


def runs_table(
    views: Sequence[RunView], *, margin: int = 2, full_names: bool = False, short_names: bool = False
) -> RenderableType:
    """A row for each run. On a narrow screen, of which `margin` columns are taken, columns are left out; the
    time that is left is a column where something runs.

    full_names:  with the experiments' names.
    short_names: without what the names of all cells begin with.
    """
    left = any(view.seconds_left is not None for view in views)
    rows = [
        {
            "run": _name(view, full_names, short_names),
            "strategy": view.strategy or "–",
            "seed": "–" if view.seed is None else str(view.seed),
            "state": state_text(view.state),
            "epoch": epochs(view),
            "loss": "–" if view.loss is None else f"{view.loss:.3f}",
            **cells(view.rates),
            "left": "" if view.seconds_left is None else console.duration(view.seconds_left),
        }
        for view in views
    ]
    heads = {name: name for name in ("run", "strategy", "seed", "state", "epoch", "loss")} | HEADS
    said = ("strategy", "seed")  # by the folders of cells already
    # Who watches a run wants to see it move; who looks back, its rates.
    droppable = ("truth", "proxy", *(("collateral",) if left else ()), "loss", "epoch")
    last = ("collateral", "truth_minus_proxy")[left:] if console.out.width < NARROW else ()
    all_cells = all(_is_cell(view.name) for view in views)
    return console.fitted_table(
        heads | ({"left": "left"} if left else {}),
        rows,
        words=("run", "strategy", "state"),
        droppable=(*said, *droppable, *last) if all_cells else (*droppable, *said, *last),
        margin=margin,
    )


def counted(views: Sequence[RunView]) -> str:
    """How many runs there are in each state, in the order of the runs: `12 done, 1 running`."""
    counts = Counter(view.state for view in views)
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def summary(views: Sequence[RunView]) -> Text:
    """One line on all runs: how many are in each state, and how long all of them will take."""
    line = Text(counted(views) or "no runs")
    left = time_left(views)
    if left is not None:
        line.append(f"; about {console.duration(left)} left")
    return line


def pick(
    views: Sequence[RunView], rows: int, *, newest: int | None = None
) -> tuple[list[RunView], list[RunView]]:
    """Which runs to show where there is room for so many rows, and which not. Where not all fit, those that
    run come first, then those that failed, then the newest of the others (at most so many), pending ones
    last."""
    if len(views) <= rows:
        return list(views), []
    newest_first = sorted(views, key=lambda view: view.newest or "", reverse=True)
    ordered = sorted(newest_first, key=lambda view: _FIRST.get(view.state, 2))
    if newest is not None:
        rows = min(rows, newest + sum(_FIRST.get(view.state, 2) < 2 for view in views))
    return ordered[:rows], ordered[rows:]


def not_shown(rest: Sequence[RunView]) -> Text:
    """The line that stands for the runs that are not shown: `… 34 done, 120 pending`."""
    return Text(f"… {counted(rest)}", style="dim")


def failures(
    views: Sequence[RunView], *, most: int = MOST_FAILURES, full_names: bool = False
) -> list[RenderableType]:
    """Why runs failed, in their own words; of very many the first, and how many more."""
    failed = [view for view in views if view.error is not None or view.log]
    lines: list[RenderableType] = []
    for view in failed[:most]:
        lines += [Text(), _why(view, full_names)]
        told = view.error or "\n"  # no line of a log holds this one
        lines += [Text(f"  {line}", style="dim") for line in view.log if told not in line]
    if failed[most:]:
        lines += [Text(), Text(f"… {len(failed) - most} more failed", style="dim")]
    return [console.indented(line) for line in lines]


def live_runs(
    views: Sequence[RunView], *, title: RenderableType | None = None, full_names: bool = False
) -> RenderableType:
    """All runs for a live view: table, failures in a line each, and the summary, never higher than the
    screen."""

    def of_height(rows: int) -> RenderableType:
        shown, rest = pick(views, rows)
        parts: list[RenderableType] = [] if title is None else [title]
        parts += (
            [console.indented(runs_table(shown, full_names=full_names, short_names=True))] if shown else []
        )
        parts += [console.indented(not_shown(rest))] if rest else []
        failed = [view for view in shown if view.error is not None]
        for view in failed[: max(1, rows // 5)]:
            line = _why(view, full_names)
            line.no_wrap, line.overflow = True, "ellipsis"
            parts.append(console.indented(line))
        return Group(*parts, Text(), summary(views))

    return Fitted(of_height, len(views))


@dataclass(frozen=True, slots=True)
class Fitted:
    """What is made with as many rows, of `rows`, as the screen's height allows."""

    make: Callable[[int], RenderableType]
    rows: int

    def __rich_console__(self, screen: Console, options: ConsoleOptions) -> RenderResult:
        rows = min(self.rows, screen.height)
        made = self.make(rows)
        while rows > 0:
            lines = len(screen.render_lines(made, options, pad=False))
            if lines <= screen.height:
                break
            # A row may be several lines high: fewer in proportion, and another look.
            rows = min(rows - 1, rows * screen.height // lines)
            made = self.make(rows)
        yield made


def _is_cell(name: str) -> bool:
    return any(part.startswith(CELL_PREFIX) for part in name.split("/"))


def epochs(view: RunView) -> str:
    """The epochs that are done, of those planned."""
    if view.epoch is None or view.state == "pending":
        return "–"
    if view.epochs is None:
        return f"{view.epoch:.3g}"
    planned = f"{view.epochs:g}" if view.epochs == int(view.epochs) else f"{view.epochs:.3g}"
    return f"{view.epoch:.3g}/{planned}"


def _why(view: RunView, full_names: bool) -> Text:
    name = _name(view, full_names)
    return Text.assemble((name, "bold"), f"  {view.error or 'its process is gone; the last it said:'}")


def _name(view: RunView, full: bool, short: bool = False) -> str:
    name = view.full_name if full else view.name
    return name.replace(CELL_PREFIX, "", 1) if short else name
