"""What every command says in the same manner: errors, warnings, tables, JSON, and the next step.

Results go to standard output (`out`), everything about the work to standard error (`err`). Colour only helps
the eye; each line reads as well without it. Rich leaves colour out when the stream is no terminal or
NO_COLOR is set.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from triggerctl.errors import Problem, TriggerctlError

PLAIN_WIDTH = 500
"""Columns of an output that is no terminal: wide, so that nothing a script may look for is broken in two."""

LABEL_WIDTH = 8
"""Of the words in front of a block's lines: error, where, why, mend, warning, strategy, next."""


class Screen(Console):
    """A console that lets whoever prints decide what a reader who has left (`… | head`) means."""

    def on_broken_pipe(self) -> None:
        """Raise what Rich would turn into the end of the program: a run goes on without its reader."""
        raise BrokenPipeError


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return Screen(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


out = _console(stderr=False)
err = _console(stderr=True)


class _Labelled:
    """Lines with a word in front. A terminal wraps them beside the word; elsewhere each stays whole, so that
    what a script looks for is never broken in two."""

    def __init__(self, rows: Sequence[tuple[str, str, Text]]) -> None:
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not console.is_terminal:
            for label, _, content in self._rows:
                yield Text(
                    f"{label:{LABEL_WIDTH}}  {content.plain}".rstrip(), no_wrap=True, overflow="ignore"
                )
            return
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=LABEL_WIDTH, no_wrap=True)
        grid.add_column(overflow="fold", ratio=1)
        for label, style, content in self._rows:
            grid.add_row(Text(label, style=style), content)
        yield grid


def _problem(problem: Problem) -> RenderableType:
    rows = [("error", "bold red", Text(problem.what, style="bold"))]
    for label, text in (("where", problem.where), ("why", problem.why), ("mend", problem.mend)):
        if text:
            rows.append((label, "green" if label == "mend" else "dim", Text(text)))
    return _Labelled(rows)


def error_block(error: TriggerctlError) -> RenderableType:
    """All problems of one error: what is wrong, where, why, and the mend, a line each."""
    parts: list[RenderableType] = []
    for index, problem in enumerate(error.problems):
        if index:
            parts.append(Text())
        parts.append(_problem(problem))
    return Group(*parts)


def show_error(error: TriggerctlError) -> None:
    """Print an error's block to standard error."""
    err.print(error_block(error), crop=False)


def show_defect(error: BaseException) -> None:
    """Print the block for an exception that we did not foresee."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    show_error(
        TriggerctlError(
            what,
            why="this is a defect of triggerctl, not of your input",
            mend="the same command with --debug shows the traceback; please report it with that",
        )
    )


def warning_block(message: str) -> RenderableType:
    """One warning."""
    return _Labelled([("warning", "yellow", Text(message))])


def warn(message: str) -> None:
    """Print one warning to standard error."""
    err.print(warning_block(message), crop=False)


def say(label: str, *lines: str | Text) -> None:
    """Print a labelled line, and more lines below it, to standard output."""
    rows = [
        (label if index == 0 else "", "dim", Text(line) if isinstance(line, str) else line)
        for index, line in enumerate(lines)
    ]
    out.print(_Labelled(rows), crop=False)


def next_step(*commands: Sequence[str]) -> None:
    """Say what the user may want to type next; each command is given as its words."""
    out.print()
    rows = [
        ("next" if index == 0 else "", "dim", Text(shlex.join(words), style="cyan"))
        for index, words in enumerate(commands)
    ]
    out.print(_Labelled(rows), crop=False)


@contextlib.contextmanager
def busy(doing: str) -> Iterator[None]:
    """Show on a terminal that something is being done; elsewhere nothing."""
    if not err.is_terminal:
        yield
        return
    with err.status(Text(doing, style="dim")):
        yield


def print_json(data: Any) -> None:
    """Print data as JSON to standard output, whole lines, never coloured or wrapped."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def table(title: str | None = None) -> Table:
    """An empty table in the one style: a rule under its header and nothing else."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        header_style="dim",
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )


def fitted_table(
    heads: Mapping[str, str],
    rows: Sequence[Mapping[str, str | Text]],
    *,
    words: Collection[str],
    droppable: Sequence[str] = (),
    margin: int = 0,
) -> Table:
    """A table that fits the screen: where it is too wide, columns are left out, the first of `droppable`
    first.

    heads: column → its title, in order. words: the columns that hold words, to the left; others hold numbers.
    margin: columns of the screen that are taken already.
    """
    shown = dict(heads)
    unbounded = out.options.update(max_width=10 * PLAIN_WIDTH)
    made = _table(shown, rows, words)
    for name in droppable:
        if Measurement.get(out, unbounded, made).maximum <= out.width - margin:
            break
        del shown[name]
        made = _table(shown, rows, words)
    return made


def _table(
    heads: Mapping[str, str], rows: Sequence[Mapping[str, str | Text]], words: Collection[str]
) -> Table:
    made = table()
    for name, title in heads.items():
        if name in words:
            made.add_column(title, overflow="fold")
        else:
            made.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        made.add_row(*(row[name] for name in heads))
    return made


def indented(content: RenderableType, by: int = 2) -> Padding:
    """Content moved to the right."""
    return Padding(content, (0, 0, 0, by), expand=False)


def interval(low: float, high: float) -> str:
    """From where to where a share may lie."""
    return f"{low:.2f}–{high:.2f}"


def rate(value: float | None) -> str:
    """A share, as 0.97; an absent one, as –."""
    return "–" if value is None else f"{value:.2f}"


def duration(seconds: float) -> str:
    """A length of time a person can grasp: 8.3 s, 47 s, 3 min 5 s, 2 h 14 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def print_json_line(data: Any) -> None:
    """Print data as one line of JSON, at once, for a program that reads along."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def size(count: float) -> str:
    """Bytes in the unit that suits them: 840 B, 22.8 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
