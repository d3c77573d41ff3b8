"""``triggerctl report``: figures, tables and a page over many runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triggerctl.cli.options import Globals, Json, words
from triggerctl.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from triggerctl.experiment.layout import ExperimentFolder
    from triggerctl.report.rows import Group

FORMATS = ("html", "md", "csv", "json", "png", "svg")
DEFAULT_FORMATS = FORMATS[:-1]


def command(
    ctx: typer.Context,
    experiments: Annotated[
        list[str], typer.Argument(metavar="EXPERIMENT…", help="Folders under the root, or paths.")
    ],
    baseline: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The strategy the others are compared with; naive if it is there."),
    ] = None,
    format_words: Annotated[
        list[str] | None,
        typer.Option(
            "--format", metavar="NAME…", help="Any of html, md, csv, json, png, svg; all but svg by default."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write it; else report/ in the experiment.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the finished runs of one or several experiments: means over seeds, intervals, figures, one
    page.

    Example:
        $ triggerctl report demo --baseline naive
        …
        report    experiments/demo/report/index.html
    """
    from triggerctl.experiment.layout import experiments_root, find_experiment

    globals_: Globals = ctx.obj
    root = experiments_root(globals_.root)
    folders = [find_experiment(name, root, config_needed=False) for name in experiments]
    formats = _formats(format_words)
    target = output if output is not None else _target(folders)

    from triggerctl import console
    from triggerctl.report.build import build_report

    with console.busy("reading runs and drawing figures"):
        made = build_report(
            [folder.path for folder in folders], target, formats=frozenset(formats), baseline=baseline
        )
    if as_json:
        written = {"headline": made.headline, "files": [str(path) for path in made.paths], "note": made.note}
        console.print_json({**written, "summary": made.summary.model_dump(mode="json")})
        return
    for finding in made.warnings:
        console.warn(finding.text)
    if made.note is not None:
        console.warn(made.note)
    console.say("found", made.headline)
    console.out.print()
    console.out.print(_table(made.groups))
    console.out.print()
    console.say(
        "report",
        str(made.paths[0]),
        *(f"{len(made.paths) - 1} more files beside it" for _ in made.paths[1:2]),
    )
    console.next_step(globals_.suggest("status", *experiments))


def _table(groups: Sequence[Group]) -> Table:
    """A line for each strategy and parameter set: seeds, and each set's mean rate with its interval."""
    from triggerctl import console
    from triggerctl.cli.rates import HEADS, RATES

    table = console.table()
    table.add_column("group", overflow="fold")
    table.add_column("seeds", justify="right")
    for name in RATES:
        table.add_column(HEADS.get(name, name), justify="right")
    for group in groups:
        table.add_row(group.label, str(len(group.runs)), *(_mean(group, name) for name in RATES))
    return table


def _mean(group: Group, name: str) -> str:
    """A set's mean rate over seeds, its 95 % interval below it where there is one."""
    from triggerctl import console

    summary = group.summary(name)
    if summary is None:
        return "–"
    interval = group.interval(name)
    below = "" if interval is None else f"\n{interval.low:.2f} to {interval.high:.2f}"
    return console.rate(summary.mean) + below


def _formats(given: Sequence[str] | None) -> tuple[str, ...]:
    chosen = tuple(words(given)) or DEFAULT_FORMATS
    for name in chosen:
        if name not in FORMATS:
            raise InputError(
                f"there is no format {name!r}", where="--format", mend="choose from " + ", ".join(FORMATS)
            )
    return chosen


def _target(folders: Sequence[ExperimentFolder]) -> Path:
    """The experiment's report folder; for several experiments a folder of their own where one stands."""
    if len(folders) == 1:
        return folders[0].report
    return Path(f"report_{folders[0].name}_{len(folders)}")
