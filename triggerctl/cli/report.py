"""``triggerctl report``: figures, tables and a page over many runs."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triggerctl.cli.options import Globals, Json, words
from triggerctl.errors import InputError, RunError
from triggerctl.report.formats import DEFAULT_FORMATS, FORMATS

if TYPE_CHECKING:
    from rich.table import Table

    from triggerctl.experiment.layout import ExperimentFolder
    from triggerctl.report.build import ReportResult
    from triggerctl.report.rows import Group


LONGEST_NAMES = 60
"""Characters of experiments' names in the name of a folder."""


Experiments = Annotated[
    list[str], typer.Argument(metavar="EXPERIMENT…", help="Folders under the root, or paths.")
]
Baseline = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The strategy the others are compared with; naive if it is there."),
]
Compare = Annotated[
    tuple[str, str] | None,
    typer.Option(
        metavar="A B",
        help="Two strategies, or groups by their label, whose answers the page sets side by side.",
    ),
]
FormatNames = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="NAME…",
        help=f"Any of {', '.join(FORMATS)}; by default {', '.join(DEFAULT_FORMATS)}.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where to write it; else report/ in the experiment, of several report_NAMES_… here.",
    ),
]


def command(
    ctx: typer.Context,
    experiments: Experiments,
    baseline: Baseline = None,
    compare: Compare = None,
    format_words: FormatNames = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Compare finished runs: means over seeds, intervals, figures, one page.

    Example
        $ triggerctl report demo --baseline naive --compare naive kl
        found     …
        group  seeds  outcome  proxy  collateral  truth  truth − proxy
        …
        report    experiments/demo/report/index.html
    """
    from triggerctl.experiment.find import experiments_root, find_experiment

    globals_: Globals = ctx.obj
    root = experiments_root(globals_.root)
    folders = [find_experiment(name, root, config_needed=False) for name in experiments]
    formats = _formats(format_words)
    target = output.expanduser() if output is not None else report_folder(folders)

    from triggerctl import console
    from triggerctl.report.build import build_report

    with console.busy("reading runs and drawing figures"):
        made = build_report(
            [folder.path for folder in folders],
            target,
            formats=frozenset(formats),
            baseline=baseline,
            compare=compare,
        )
    if not made.paths:
        raise RunError(
            "the report has no files",
            where=str(target),
            why=" ".join(made.notes) or "no figure can be drawn of what these runs measured",
            mend="ask for the texts too: --format html,md,csv,json",
        )
    if as_json:
        console.print_json(_document(made))
        return
    _show(made)
    console.next_step(*_next_steps(made, experiments, globals_))


def _document(made: ReportResult) -> dict[str, Any]:
    return {
        "headline": made.headline,
        "files": [str(path) for path in made.paths],
        "notes": list(made.notes),
        "summary": made.summary.model_dump(mode="json"),
    }


def _next_steps(made: ReportResult, experiments: Sequence[str], globals_: Globals) -> list[list[str]]:
    page = next((path for path in made.paths if path.suffix == ".html"), None)
    steps = []
    if page is not None:  # an address, since not every system's browser is opened by a path
        steps.append([Path(sys.executable).name, "-m", "webbrowser", page.resolve().as_uri()])
    if len(made.groups) == 1:
        swept = ("--seeds", "1", "5", "42", "--strategies", "naive,kl")
        steps.append(globals_.suggest("sweep", experiments[0], *swept))
    return steps or [globals_.suggest("status", *experiments)]


def _show(made: ReportResult) -> None:
    from triggerctl import console

    console.say("found", made.headline)
    for sentence in made.summary.few_seeds:
        console.say("seeds", sentence)
    console.out.print()
    console.out.print(_table(made.groups))
    console.out.print()
    for text in [*(finding.text for finding in made.warnings), *made.notes]:
        console.warn(text)
    console.out.print()
    others = len(made.paths) - 1
    console.say("report", str(made.paths[0]), *([f"and {others} more files beside it"] if others else []))


def _table(groups: Sequence[Group]) -> Table:
    """A line for each strategy and parameter set: seeds, and each set's mean rate with its interval below."""
    from triggerctl import console
    from triggerctl.cli.rates import HEADS, RATES

    rows = [
        {
            "group": group.label,
            "seeds": str(len(group.runs)),
            **{name: _mean(group, name) for name in RATES},
        }
        for group in groups
    ]
    heads = {"group": "group", "seeds": "seeds", **HEADS}
    return console.fitted_table(heads, rows, words=("group",), droppable=("truth", "proxy"))


def _mean(group: Group, name: str) -> str:
    from triggerctl import console

    interval = group.interval(name)
    below = "" if interval is None else f"\n{console.interval(interval.low, interval.high)}"
    return console.rate(group.mean(name)) + below


def _formats(given: Sequence[str] | None) -> tuple[str, ...]:
    chosen = tuple(words(given, "--format")) or DEFAULT_FORMATS
    for name in chosen:
        if name not in FORMATS:
            raise InputError(
                f"there is no format {name!r}", where="--format", mend="choose from " + ", ".join(FORMATS)
            )
    return chosen


def report_folder(folders: Sequence[ExperimentFolder]) -> Path:
    """The experiment's report folder; for several experiments a folder of their own where one stands, whose
    name says them, and by a few digits which of that name they are."""
    names = {folder.path.absolute(): folder.name for folder in folders}
    if len(names) == 1:
        return folders[0].report
    which = hashlib.sha256("\n".join(map(str, names)).encode()).hexdigest()[:6]
    return Path(f"report_{'_'.join(names.values())[:LONGEST_NAMES]}_{which}")
