"""What a run shows while it works: a line for each thing worth keeping, and on a terminal a bar below them.

The lines are the same with and without a terminal, so that a log file reads like the screen. Where there is
no terminal a line every ten seconds takes the bar's place.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from triggerctl import console
from triggerctl.experiment.results import EVALUATION_SETS, Evaluation
from triggerctl.training import events

SECONDS_BETWEEN_LINES = 10.0

DOING = {
    "download": "downloading",
    "load model": "loading the model",
    "tokenise": "tokenising",
    "evaluate": "evaluating",
    "base pass": "reading the base model",
    "figures": "drawing figures",
}
NOT_SHOWN = ("proxy_neg",)
"""Sets left out of the growing table: their prompts, and so their rates, are another set's."""

LABEL_WIDTH = console.LABEL_WIDTH
_BYTE_STAGES = ("download",)


class LiveRun:
    """A listener for one run's events; a context manager, since a terminal's bar must be taken down again.

    `clock` returns seconds that only grow.
    """

    def __init__(self, out: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._bar = _bar(out) if out.is_terminal else None
        self._task: TaskID | None = None
        self._said = clock()
        self._columns: tuple[str, ...] = ()
        self._losses: list[float] = []
        self._stage: str | None = None
        self._gone = False

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.stop()

    def __call__(self, event: events.Event) -> None:
        # A run outlives the terminal or pipe that watches it: after the first failed write nothing more is
        # said.
        if not self._gone:
            try:
                self._show_event(event)
            except OSError:
                self._gone = True

    def _show_event(self, event: events.Event) -> None:
        match event:
            case events.Started():
                self._started(event)
            case events.Progress():
                self._progress(event)
            case events.PhaseStarted() if event.phase != "main":
                self._line("phase", f"{event.phase}: {_work(event)}")
            case events.Stepped():
                self._stepped(event)
            case events.Evaluated():
                self._evaluated(event.evaluation)
            case events.Warned():
                self._out.print(console.warning_block(event.message), crop=False)
            case events.Noted():
                self._line("note", event.message)
            case events.Interrupted():
                self._line("stopped", f"a checkpoint of update {event.step} is written")
            case _:
                pass

    def _started(self, event: events.Started) -> None:
        self._line("run", f"{event.folder.name}: {event.strategy}, seed {event.seed}")
        threads = many(event.threads, "thread")
        if event.processes > 1:
            threads += f" in each of {event.processes} processes"
        share = event.trainable / event.parameters if event.parameters else 0.0
        self._line(
            "model",
            f"{event.parameters:,} parameters, {event.trainable:,} trained ({share:.1%}), "
            f"{event.device}, {event.dtype}, {threads}",
        )
        plan = _work(event)
        if event.resumed_step is not None:
            plan += f"; goes on after update {event.resumed_step}"
        self._line("plan", plan)
        self._out.print()

    def _progress(self, event: events.Progress) -> None:
        doing = DOING.get(event.stage, event.stage)
        if event.stage in _BYTE_STAGES:
            done, total = console.size(event.done), console.size(event.total) if event.total else None
        else:
            done, total = f"{event.done:,}", f"{event.total:,}" if event.total else None
        amount = f"{done} of {total}" if total else done
        finished = event.total is not None and event.done >= event.total
        if self._bar is not None:
            self._show(
                doing, event.done, event.total, " ".join(part for part in (amount, event.detail) if part)
            )
        elif event.stage != self._stage:
            self._stage = event.stage
            self._said = self._clock()
        elif self._due() and not finished:
            self._line("", f"{doing}: {amount} {event.detail}".rstrip())

    def _stepped(self, event: events.Stepped) -> None:
        self._losses.append(event.loss)
        self._stage = None
        detail = (
            f"epoch {event.epoch:.1f}   loss {event.loss:.3f}   "
            f"{event.tokens_per_second:,.0f} tokens/s   {console.duration(event.seconds_left)} left"
        )
        if self._bar is not None:
            self._show(f"update {event.step}/{event.updates}", event.step, event.updates, detail)
        elif self._due():
            self._line("", f"update {event.step} of {event.updates}   {detail}")

    def _evaluated(self, evaluation: Evaluation) -> None:
        """A row of the table that grows with the run: the training loss since the last row, then each set's
        rate."""
        columns = tuple(name for name in ordered_sets(evaluation.sets) if name not in NOT_SHOWN)
        if columns != self._columns:
            self._columns = columns
            heads = "".join(f"  {name:>{_width(name)}}" for name in columns)
            self._out.print(Text(f"{'':{LABEL_WIDTH}}  {'loss':>6}{heads}", style="dim"), soft_wrap=True)
        loss = f"{sum(self._losses) / len(self._losses):.3f}" if self._losses else "–"
        self._losses = []
        label = evaluation.label if len(evaluation.label) <= LABEL_WIDTH else "at end"
        row = Text(f"{label:{LABEL_WIDTH}}", style="bold")
        row.append(f"  {loss:>6}", style="not bold")
        for name in columns:
            triggered = evaluation.sets[name].triggered
            value = console.rate(triggered.rate if triggered is not None else None)
            row.append(f"  {value:>{_width(name)}}", style="not bold")
        self._out.print(row, soft_wrap=True)
        self._said = self._clock()

    def _line(self, label: str, text: str) -> None:
        self._said = self._clock()
        self._out.print(Text.assemble((f"{label:{LABEL_WIDTH}}  ", "dim"), text), soft_wrap=True)

    def _due(self) -> bool:
        return self._clock() - self._said >= SECONDS_BETWEEN_LINES

    def _show(self, description: str, done: int, total: int | None, detail: str) -> None:
        assert self._bar is not None
        if self._task is None:
            self._task = self._bar.add_task(description, total=total, detail=detail)
        self._bar.update(self._task, description=description, completed=done, total=total, detail=detail)


def ordered_sets(names: Iterable[str]) -> tuple[str, ...]:
    """Set names in the order they are shown: the study's, then a user's own."""
    given = tuple(names)
    return (*(n for n in EVALUATION_SETS if n in given), *(n for n in given if n not in EVALUATION_SETS))


def _bar(out: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", style="bold"),
        BarColumn(bar_width=20, style="bright_black", complete_style="cyan", finished_style="cyan"),
        TextColumn("{task.fields[detail]}", style="dim"),
        console=out,
        transient=True,
        refresh_per_second=8,
    )


def _width(name: str) -> int:
    return max(len(name), 4)


def _work(event: events.Started | events.PhaseStarted) -> str:
    return f"{many(event.epochs, 'epoch')}, {many(event.updates, 'update')}"


def many(count: float, noun: str) -> str:
    """A count with its noun: 1 row, 1,200 rows, 0.25 epochs."""
    shown = f"{int(count):,}" if count == int(count) else f"{count:.3g}"
    return f"{shown} {noun}" if count == 1 else f"{shown} {noun}s"


def download_listener(listener: events.Listener) -> Callable[[int, int | None], None]:
    """What a download calls with bytes done and whole, as a listener's events."""
    return lambda done, total: listener(events.Progress("download", done, total))
