"""What a sweep shows: each run as it goes, and one table of all at the end."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.table import Table
from rich.text import Text

from triggerctl import console
from triggerctl.cli.live import LiveRun
from triggerctl.cli.rates import HEADS, cells, final_rates, state_text

if TYPE_CHECKING:
    from triggerctl.sweep.sequential import CellOutcome, PlannedCell, Sweep
    from triggerctl.training.events import Listener


class SweepScreen:
    """Shows a sweep; a context manager, since the bar of the run at hand must be taken down."""

    def __init__(self, out: Console, sweep: Sweep) -> None:
        self._out = out
        self._root = sweep.folder.path
        self._live: LiveRun | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def starting(self, planned: PlannedCell, index: int, total: int) -> Listener:
        """A head line for the run, then its own events."""
        name = planned.cell.folder.path.relative_to(self._root).as_posix()
        self._out.print()
        self._out.print(Text.assemble((f"{index} of {total}  ", "dim"), (name, "bold")), soft_wrap=True)
        self._live = LiveRun(self._out)
        self._live.__enter__()
        return self._live

    def ended(self, outcome: CellOutcome) -> None:
        """A failure is shown when it happens; what was not trained is one line."""
        trained = self._live is not None
        self._close()
        name = outcome.planned.cell.folder.path.relative_to(self._root).as_posix()
        if outcome.error is not None:
            console.show_error(outcome.error)
        elif not trained:
            why = [] if outcome.results is not None else [Text(outcome.reason, style="dim")]
            console.say(outcome.outcome.value, name, *why)

    def _close(self) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._live = None


def outcome_table(sweep: Sweep, outcomes: Sequence[CellOutcome]) -> Table:
    """All runs of a sweep: what became of each, its time and its final rates; those not reached as well."""
    by_cell = {id(ended.planned): ended for ended in outcomes}
    rows = []
    for planned in sweep.planned:
        ended = by_cell.get(id(planned))
        rows.append(
            {
                "run": planned.cell.folder.path.relative_to(sweep.folder.path).as_posix(),
                "ended": state_text(ended.outcome.value if ended is not None else "not reached"),
                "time": console.duration(ended.seconds) if ended is not None and ended.seconds else "–",
                **cells(final_rates(ended.results if ended is not None else None)),
            }
        )
    heads = {"run": "run", "ended": "ended", "time": "time", **HEADS}
    return console.fitted_table(heads, rows, words=("run", "ended"), droppable=("time", "truth", "proxy"))
