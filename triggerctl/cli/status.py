"""``triggerctl status``: where every run stands."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triggerctl.cli.options import Globals, Json
from triggerctl.garbage import all_that_is_made_stays

if TYPE_CHECKING:
    from rich.console import RenderableType

    from triggerctl.experiment.overview import RunView

    Found = list[tuple[str, list[RunView]]]
    """Experiments by name, each with its runs."""

_STOPPED = ("interrupted", "stale", "failed")
SECONDS_BETWEEN_LOOKS = 2.0
MOST_TABLES = 12
"""Of more experiments all runs stand in one table."""


def command(
    ctx: typer.Context,
    experiments: Annotated[
        list[str] | None,
        typer.Argument(metavar="EXPERIMENT…", help="Folders under the root, or paths; all if none is named."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every two seconds, until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show where every run stands, its loss and rates, and why it failed.

    Of very many runs the table shows those that run or failed and the newest; --json has all. With --watch,
    where the output is no terminal, a line follows for each run that changed; with --json too, a document.

    Example
        $ triggerctl status demo
        demo
        run     strategy  seed  state  epoch   loss  outcome  proxy  …
        seed_1  naive        1  done     4/4  0.412     0.98   0.00  …
        seed_5  naive        5  stale    1/4  1.377        –      –  …
    """
    from triggerctl import console

    globals_: Globals = ctx.obj
    names = experiments or []
    if watch:
        _watch(names, globals_, as_json=as_json)
        return
    found = _look(names, globals_)
    if as_json:
        _print_json(found)
        return
    for renderable in _screen(found):
        console.out.print(renderable)
    _next(names, found, globals_)


def _look(names: Sequence[str], globals_: Globals) -> Found:
    """Every experiment's runs, as they stand now."""
    from triggerctl.experiment.find import experiments_root, find_experiment, list_experiments
    from triggerctl.experiment.overview import view_experiment

    root = experiments_root(globals_.root)
    with all_that_is_made_stays():
        if names:
            found = [(name, find_experiment(name, root, config_needed=False)) for name in names]
        else:
            depth = len(root.parts)
            found = [("/".join(folder.path.parts[depth:]), folder) for folder in list_experiments(root)]
        return [(name, view_experiment(folder, name)) for name, folder in found]


def _screen(found: Found) -> list[RenderableType]:
    """Each experiment with its table, those of many experiments in one; what is too much is counted."""
    from rich.text import Text

    from triggerctl import console
    from triggerctl.cli.runs_table import (
        MOST_ROWS,
        NEWEST_ROWS,
        failures,
        not_shown,
        pick,
        runs_table,
        summary,
    )

    if not found:
        return [Text("no experiments here yet")]
    together = len(found) > MOST_TABLES
    every = [view for _, runs in found for view in runs]
    shown, rest = pick(every, MOST_ROWS, newest=NEWEST_ROWS)
    parts: list[RenderableType] = []
    for name, runs in [(f"{len(found)} experiments", every)] if together else found:
        title = Text(name, style="bold")
        title.append("  ").append(summary(runs).plain, style="not bold dim")
        parts += [Text(), title] if parts else [title]
        own = {id(view) for view in runs}
        rows = [view for view in shown if id(view) in own]
        if rows:
            parts.append(console.indented(runs_table(rows, full_names=together)))
            parts += failures(rows, full_names=together)
    if rest:
        parts += [Text(), not_shown(rest).append("; --json has every run")]
    return parts


def _watch(names: Sequence[str], globals_: Globals, *, as_json: bool) -> None:
    """Look again and again: a live table on a terminal, else what changed. Ends only by Ctrl-C."""
    from rich.live import Live

    from triggerctl import console
    from triggerctl.cli.runs_table import live_runs

    if console.out.is_terminal and not as_json:
        with Live(console=console.out, auto_refresh=False) as live:
            while True:
                found = _look(names, globals_)
                views = [view for _, runs in found for view in runs]
                live.update(live_runs(views, title=_title(found), full_names=len(found) > 1), refresh=True)
                time.sleep(SECONDS_BETWEEN_LOOKS)
    before: Found = []
    first = True
    while True:
        found = _look(names, globals_)
        if as_json:
            for name, view in _changed(before, found):
                sys.stdout.write(json.dumps({"experiment": name, **_run(view)}, ensure_ascii=False) + "\n")
        elif first:
            for renderable in _screen(found):
                console.out.print(renderable)
        else:
            for _, view in _changed(before, found):
                console.out.print(_line(view), soft_wrap=True)
        sys.stdout.flush()
        before, first = found, False
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _title(found: Found) -> RenderableType:
    from rich.text import Text

    if not found:
        return Text("no experiments here yet")
    return Text(found[0][0] if len(found) == 1 else f"{len(found)} experiments", style="bold")


def _changed(before: Found, now: Found) -> Iterator[tuple[str, RunView]]:
    """Runs that are new or moved since the last look, those that are gone as well; that time went by is no
    change."""
    old = {(name, view.name): view for name, runs in before for view in runs}
    for name, runs in now:
        for view in runs:
            last = old.pop((name, view.name), None)
            if last is None or replace(last, seconds=None) != replace(view, seconds=None):
                yield name, view
    for (name, _), view in old.items():
        yield name, replace(view, state="gone")


def _line(view: RunView) -> str:
    """A run in a line: `12:30:05  demo/seed_1  running  epoch 2/4  loss 0.412  outcome 0.98  12 s left`."""
    from triggerctl import console
    from triggerctl.cli.rates import RATES
    from triggerctl.cli.runs_table import epochs

    parts = [f"{datetime.now():%H:%M:%S}", view.full_name, view.state]
    if view.epoch is not None:
        parts.append(f"epoch {epochs(view)}")
    if view.loss is not None:
        parts.append(f"loss {view.loss:.3f}")
    parts += [f"{each} {rate:.2f}" for each in RATES if (rate := view.rates.get(each)) is not None]
    if view.seconds_left is not None:
        parts.append(f"{console.duration(view.seconds_left)} left")
    if view.error is not None:
        parts.append(view.error)
    return "  ".join(parts)


def _print_json(found: Found) -> None:
    """As `console.print_json`, in a fifth of the time: there may be ten thousand runs."""
    from pydantic_core import PydanticSerializationError, to_json

    document = [_document(name, runs) for name, runs in found]
    try:
        text = to_json(document, indent=2).decode()
    except PydanticSerializationError:  # a folder's name is not UTF-8
        text = json.dumps(document, indent=2)
    sys.stdout.write(text + "\n")


def _document(name: str, runs: Sequence[RunView]) -> dict[str, Any]:
    return {"experiment": name, "runs": [_run(view) for view in runs]}


def _run(view: RunView) -> dict[str, Any]:
    return {
        "run": view.name,
        "strategy": view.strategy,
        "seed": view.seed,
        "state": view.state,
        "finished_results": view.finished,
        "epoch": view.epoch,
        "epochs": view.epochs,
        "loss": view.loss,
        "rates": dict(view.rates),
        "error": view.error,
        "log": list(view.log),
        "seconds_left": view.seconds_left,
        "folder": str(view.folder),
        "phase": view.phase,
        "step": view.step,
        "steps": view.steps,
        "newest_results": view.newest,
        "seconds": view.seconds,
    }


def _next(names: Sequence[str], found: Found, globals_: Globals) -> None:
    from triggerctl import console

    if not found:
        console.next_step(globals_.suggest("init", "demo", "--template", "quickstart"))
        return
    done = [name for name, runs in found if any(run.state == "done" for run in runs)]
    report = globals_.suggest("report", *(names if names and len(done) == len(found) else done[:1]))
    steps = [report] if done else []
    if sweep := _unfinished_sweep(found):
        steps.append(sweep)
    elif _is_under_way(found):
        steps.append(globals_.suggest("status", *names, "--watch"))
    console.next_step(*steps or [globals_.suggest("run", found[0][0])])


def _is_under_way(found: Found) -> bool:
    return any(view.state == "running" for _, runs in found for view in runs)


def _unfinished_sweep(found: Found) -> list[str]:
    """The newest sweep of a run that stopped before its end, or was never begun while none is under way; the
    same command takes that up."""
    from triggerctl.sweep.record import last_command

    views = [view for _, runs in found for view in runs]
    unfinished = _STOPPED if _is_under_way(found) else (*_STOPPED, "pending")
    stopped = (view.folder for view in views if view.state in unfinished)
    for above in dict.fromkeys(above for folder in stopped for above in folder.parents[:2]):
        if command := last_command(above / "sweeps"):
            return command
    return []
