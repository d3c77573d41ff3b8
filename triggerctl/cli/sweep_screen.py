"""What a sweep shows: on a terminal one table of all runs that is drawn anew as they go on, elsewhere a line
for each thing that happens; at the end what became of each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from triggerctl import console
from triggerctl.cli.rates import HEADS, RATES, cells, final_rates, state_text
from triggerctl.cli.runs_table import live_runs

if TYPE_CHECKING:
    from triggerctl.experiment.overview import RunView
    from triggerctl.sweep.cell import CellOutcome
    from triggerctl.sweep.follow import Follower
    from triggerctl.sweep.plan import PlannedCell, Sweep

SECONDS_BETWEEN_LOOKS = 0.5


class SweepScreen:
    """Shows a sweep; a context manager, since a terminal's table must be taken down."""

    def __init__(self, out: Console, sweep: Sweep, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._sweep = sweep
        self._clock = clock
        self._followed: dict[str, Follower] = {}
        self._words: dict[str, str] = {}
        self._views: dict[str, RunView] = {}
        self._live: Live | None = None
        self._looked = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tick()
        if self._live is not None:
            self._live.stop()

    def began(self, planned: PlannedCell) -> None:
        """A line for the run; from now on it is listened to."""
        from triggerctl.sweep.follow import Follower

        name = self._sweep.name(planned.cell)
        if name not in self._followed and not self._out.is_terminal:
            place = f"{self._sweep.planned.index(planned) + 1} of {len(self._sweep.planned)}"
            self._line(planned.action.value, name, place)
        self._followed[name] = Follower(planned.folder, planned.hash)
        if self._out.is_terminal and self._live is None:
            # What is printed from now on appears above the table.
            self._live = Live(console=self._out, auto_refresh=False, transient=True)
            self._live.start()

    def ended(self, planned: PlannedCell, outcome: CellOutcome) -> None:
        """A failure is shown when it happens, with the end of its log; the rest is one line."""
        self.tick()
        name = self._sweep.name(planned.cell)
        was_trained = self._followed.pop(name, None) is not None
        self._words[name] = outcome.outcome.value
        self._views.pop(name, None)
        if outcome.error is not None:
            self._failure(planned, outcome)
        elif was_trained:
            self._line(outcome.outcome.value, name, console.duration(outcome.seconds))
        else:
            self._line(outcome.outcome.value, name, outcome.reason)

    def note(self, text: str) -> None:
        """A line of the launcher's."""
        console.say("note", text)

    def tick(self) -> None:
        """Tell what the runs have said since, or draw the table anew."""
        for name, follower in self._followed.items():
            for line in follower.news():
                self._tell(name, line)
        if self._live is not None and self._clock() - self._looked > SECONDS_BETWEEN_LOOKS:
            self._looked = self._clock()
            self._live.update(live_runs(self._look()), refresh=True)

    def _look(self) -> list[RunView]:
        """Every cell as it stands; those that are under way are looked at anew."""
        from triggerctl.experiment.overview import view_run

        found = []
        for planned in self._sweep.planned:
            name = self._sweep.name(planned.cell)
            view = self._views.get(name)
            if view is None or name in self._followed:
                view = view_run(planned.folder, name)
                word = self._words.get(name)
                if name in self._followed and view.state != "running":
                    word = "starting"
                elif word is None and name not in self._followed:
                    word = "pending"
                view = replace(view, state=word or view.state)
                self._views[name] = view
            found.append(view)
        return found

    def _tell(self, name: str, line: Mapping[str, Any]) -> None:
        if line["event"] == "evaluated" and self._live is None:
            rates = {
                of: found["triggered"]["k"] / found["triggered"]["n"]
                for of, found in line["sets"].items()
                if of in RATES and found.get("triggered")
            }
            shown = "  ".join(f"{of} {rate:.2f}" for of, rate in rates.items())
            self._line(str(line["label"]), name, shown)
        elif line["event"] == "warned":
            console.warn(f"{name}: {line['message']}")

    def _failure(self, planned: PlannedCell, outcome: CellOutcome) -> None:
        from triggerctl.experiment.state import LOG_LINES, last_lines

        assert outcome.error is not None
        console.show_error(outcome.error)
        lines = last_lines(planned.folder.log, LOG_LINES)
        if lines:
            console.err.print(Text(f"log       {planned.folder.log} ends:", style="dim"), soft_wrap=True)
            for line in lines:
                console.err.print(Text(f"          {line}", style="dim"), soft_wrap=True)

    def _line(self, label: str, name: str, more: str) -> None:
        text = Text(name)
        if more:
            text.append(f"  {more}", style="dim")
        console.say(label, text)


class JsonScreen:
    """The same for programs: a JSON document a line for each thing that happens."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def began(self, planned: PlannedCell) -> None:
        """A worker has begun with a run, or gone on with it."""
        self._line("began", run=self._sweep.name(planned.cell), hash=planned.hash)

    def ended(self, planned: PlannedCell, outcome: CellOutcome) -> None:
        """What became of a run."""
        self._line(
            "ended",
            run=self._sweep.name(planned.cell),
            hash=planned.hash,
            outcome=outcome.outcome.value,
            reason=outcome.reason,
            seconds=round(outcome.seconds, 3),
            results=str(outcome.results) if outcome.results is not None else None,
            rates=final_rates(outcome.results),
        )

    def note(self, text: str) -> None:
        """A line of the launcher's."""
        self._line("note", text=text)

    def tick(self) -> None:
        """Nothing: what runs tell is in their folders."""

    def _line(self, event: str, **content: object) -> None:
        console.print_json_line({"event": event, **content})


class OutlivingScreen:
    """Another screen, which a sweep outlives: when the terminal or pipe that watches is gone, nothing more is
    said after the first failed write, and the sweep goes on."""

    def __init__(self, shown: SweepScreen | JsonScreen) -> None:
        self._shown = shown
        self._gone = False

    def __enter__(self) -> Self:
        self._shown.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._shown.__exit__(kind, error, trace)

    def began(self, planned: PlannedCell) -> None:
        self._show(lambda: self._shown.began(planned))

    def ended(self, planned: PlannedCell, outcome: CellOutcome) -> None:
        self._show(lambda: self._shown.ended(planned, outcome))

    def note(self, text: str) -> None:
        self._show(lambda: self._shown.note(text))

    def tick(self) -> None:
        self._show(self._shown.tick)

    def _show(self, show: Callable[[], None]) -> None:
        if not self._gone:
            try:
                show()
            except OSError:
                self._gone = True


def warn_of(sweep: Sweep) -> None:
    """Print what the plans of the runs warn of, once where several do."""
    for text in dict.fromkeys(text for planned in sweep.planned for text in planned.warnings):
        console.warn(text)


def outcome_table(sweep: Sweep, outcomes: Sequence[CellOutcome | None]) -> Table:
    """All runs of a sweep: what became of each, its time and its final rates; those not reached as well."""
    rows = [
        {
            "run": sweep.name(planned.cell),
            "ended": state_text(ended.outcome.value if ended is not None else "not reached"),
            "time": console.duration(ended.seconds) if ended is not None and ended.seconds else "–",
            **cells(final_rates(ended.results if ended is not None else None)),
        }
        for planned, ended in zip(sweep.planned, outcomes, strict=True)
    ]
    heads = {"run": "run", "ended": "ended", "time": "time", **HEADS}
    return console.fitted_table(heads, rows, words=("run", "ended"), droppable=("time", "truth", "proxy"))
