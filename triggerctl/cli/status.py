"""``triggerctl status``: where every run stands."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triggerctl.cli.options import Globals, Json
from triggerctl.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from triggerctl.experiment.layout import ExperimentFolder
    from triggerctl.experiment.state import RunState

SECONDS_BETWEEN_LOOKS = 2.0
LOG_LINES = 3


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
    if as_json:
        if watch:
            raise InputError(
                "--json and --watch don't go together", where="triggerctl status", mend="drop one"
            )
        console.print_json([_document(name, runs) for name, runs in _look(names, globals_)])
        return
    if watch and console.out.is_terminal:
        _watch(names, globals_)
        return
    found = _look(names, globals_)
    for renderable in _screen(found):
        console.out.print(renderable)
    while watch:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        again = _look(names, globals_)
        if again != found:
            found = again
            for renderable in _screen(found):
                console.out.print(renderable)
    _next(names, found, globals_)


@dataclass(frozen=True, slots=True)
class _Run:
    """One line of the table. `done` counts finished results of the folder, of any hash."""

    name: str
    strategy: str | None
    seed: int | None
    state: str
    done: int
    epoch: float | None
    epochs: float | None
    loss: float | None
    rates: dict[str, float | None]
    error: str | None
    log: tuple[str, ...]
    seconds_left: float | None


def _look(names: Sequence[str], globals_: Globals) -> list[tuple[str, list[_Run]]]:
    """Every experiment's runs, as they stand now."""
    from triggerctl.experiment.layout import experiments_root, find_experiment, list_experiments, walk_runs

    root = experiments_root(globals_.root)
    if names:
        found = [(name, find_experiment(name, root, config_needed=False)) for name in names]
    else:
        found = [(folder.path.relative_to(root).as_posix(), folder) for folder in list_experiments(root)]
    return [(name, [_run(run, folder) for run in walk_runs(folder)]) for name, folder in found]


def _run(run: ExperimentFolder, experiment: ExperimentFolder) -> _Run:
    from triggerctl.cli.rates import stored_rates
    from triggerctl.experiment.runs import finished_in
    from triggerctl.experiment.state import RunState, run_status, tail

    error: str | None = None
    try:
        state, shown = run_status(run.path)
    except InputError as damaged:
        state, shown, error = RunState(), "failed", str(damaged)
    finished = finished_in(run)
    newest = finished.runs[0] if finished.runs else None
    word: str = shown
    rates: dict[str, float | None] = {}
    loss = state.progress.loss
    if shown in ("pending", "done") and newest is not None:
        # The study's folders have results and no state.
        word = "done"
        rates = stored_rates(newest.results)
        loss = next((each for each in reversed(newest.results.train_losses) if each is not None), loss)
    elif shown != "pending":
        rates = dict(state.progress.rates)
    elif finished.unreadable:
        word, error = "failed", finished.unreadable[0]
    strategy, seed = state.strategy, state.seed
    if strategy is None:
        strategy, seed = (newest.results.strategy, newest.results.seed) if newest else _asked(run)
    failed = word in ("failed", "stale")
    return _Run(
        name=run.name if run == experiment else run.path.relative_to(experiment.path).as_posix(),
        strategy=strategy,
        seed=seed,
        state=word,
        done=len(finished.runs),
        epoch=_epoch(state, newest is not None),
        epochs=state.epochs,
        loss=loss,
        rates=rates,
        error=error or (state.error if failed else None),
        log=tuple(tail(run.log, LOG_LINES)) if failed else (),
        seconds_left=state.progress.seconds_left if word == "running" else None,
    )


def _asked(run: ExperimentFolder) -> tuple[str | None, int | None]:
    """Strategy and seed of a run that never began, from its configuration."""
    from triggerctl.config.load import load_config

    try:
        config = load_config(run.config).config
    except InputError:
        return None, None
    return config.proxy_strategy, config.seed


def _epoch(state: RunState, has_results: bool) -> float | None:
    return state.epoch if state.epochs is not None or not has_results else None


def _screen(found: Sequence[tuple[str, list[_Run]]]) -> list[RenderableType]:
    from rich.text import Text

    from triggerctl import console

    parts: list[RenderableType] = []
    for index, (name, runs) in enumerate(found):
        if index:
            parts.append(Text())
        title = Text(name, style="bold")
        title.append(f"  {_counted(runs)}", style="not bold dim")
        parts += [title, console.indented(_table(runs))]
        for run in runs:
            parts += _why(run)
    if not found:
        parts.append(Text("no experiments here yet"))
    return parts


def _counted(runs: Sequence[_Run]) -> str:
    states = [run.state for run in runs]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "no runs"


def _table(runs: Sequence[_Run]) -> RenderableType:
    from triggerctl import console
    from triggerctl.cli.rates import HEADS, cells, state_text
    from triggerctl.experiment.layout import CELL_PREFIX

    rows = [
        {
            "run": run.name,
            "strategy": run.strategy or "–",
            "seed": "–" if run.seed is None else str(run.seed),
            "state": state_text(run.state),
            "epoch": _epochs(run),
            "loss": "–" if run.loss is None else f"{run.loss:.3f}",
            **cells(run.rates),
        }
        for run in runs
    ]
    own = ("run", "strategy", "seed", "state", "epoch", "loss")
    said = ("strategy", "seed")  # by the folders of cells already
    droppable = ("truth", "proxy", "loss", "epoch")
    all_cells = all(run.name.startswith(CELL_PREFIX) for run in runs)
    return console.fitted_table(
        {name: name for name in own} | HEADS,
        rows,
        words=("run", "strategy", "state"),
        droppable=(*said, *droppable) if all_cells else (*droppable, *said),
        margin=2,
    )


def _epochs(run: _Run) -> str:
    if run.epoch is None or run.state == "pending":
        return "–"
    return f"{run.epoch:.3g}" + (f"/{run.epochs:g}" if run.epochs is not None else "")


def _why(run: _Run) -> list[RenderableType]:
    """Why a run failed, in its own words."""
    from rich.text import Text

    from triggerctl import console

    if run.error is None and not run.log:
        return []
    lines = [Text.assemble((run.name, "bold"), f"  {run.error or 'its process is gone; the last it said:'}")]
    lines += [Text(f"  {line}", style="dim") for line in run.log]
    return [Text(), *(console.indented(line) for line in lines)]


def _watch(names: Sequence[str], globals_: Globals) -> None:
    from rich.console import Group
    from rich.live import Live

    from triggerctl import console

    with Live(Group(*_screen(_look(names, globals_))), console=console.out, auto_refresh=False) as live:
        while True:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            live.update(Group(*_screen(_look(names, globals_))), refresh=True)


def _document(name: str, runs: Sequence[_Run]) -> dict[str, Any]:
    return {
        "experiment": name,
        "runs": [
            {
                "run": run.name,
                "strategy": run.strategy,
                "seed": run.seed,
                "state": run.state,
                "finished_results": run.done,
                "epoch": run.epoch,
                "epochs": run.epochs,
                "loss": run.loss,
                "rates": run.rates,
                "error": run.error,
                "log": list(run.log),
                "seconds_left": run.seconds_left,
            }
            for run in runs
        ],
    }


def _next(names: Sequence[str], found: Sequence[tuple[str, list[_Run]]], globals_: Globals) -> None:
    from triggerctl import console

    if not found:
        console.next_step(globals_.suggest("init", "demo", "--template", "quickstart"))
        return
    done = [name for name, runs in found if any(run.state == "done" for run in runs)]
    if done:
        console.next_step(
            globals_.suggest("report", *(names if names and len(done) == len(found) else done[:1]))
        )
    else:
        console.next_step(globals_.suggest("run", found[0][0]))
