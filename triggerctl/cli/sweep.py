"""``triggerctl sweep``: many runs, seeds times strategies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from triggerctl.cli.options import Device, DontOverwrite, Experiment, Globals, Json, Threads, seeds, words

if TYPE_CHECKING:
    from triggerctl.sweep.sequential import CellOutcome, Sweep


def command(
    ctx: typer.Context,
    experiment: Experiment,
    seed_words: Annotated[
        list[str] | None, typer.Option("--seeds", metavar="N…", help="Seeds: 1 5 42, or 1,5,42.")
    ] = None,
    strategy_words: Annotated[
        list[str] | None,
        typer.Option("--strategies", metavar="NAME…", help="Strategies: naive kl, or naive,kl."),
    ] = None,
    dont_overwrite: DontOverwrite = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first run that fails.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would happen to each run, and end.")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> int:
    """Train one run for each strategy and seed, and go on past those that fail.

    The same command again does what is missing, failed or interrupted. Strategies that sweep.json lists bring
    their overrides; without --strategies all of them are taken.

    Example
        $ triggerctl sweep demo --seeds 1 5 42 --strategies naive,kl
        …
        run                                  ended  time  outcome  proxy  …
        proxy_strategy_naive/seed_1          done   21 s     1.00   0.00  …
        proxy_strategy_kl_divergence/seed_1  done   24 s     1.00   0.00  …
    """
    from triggerctl import console
    from triggerctl.cli.live import LiveRun, download_listener
    from triggerctl.config.load import load_config
    from triggerctl.errors import InputError
    from triggerctl.experiment.layout import experiments_root, find_experiment

    globals_: Globals = ctx.obj
    swept = seeds(seed_words)
    if as_json and not dry_run:
        raise InputError("--json goes with --dry-run", where="triggerctl sweep", mend="add --dry-run")
    folder = find_experiment(experiment, experiments_root(globals_.root))
    loaded = load_config(folder.config)

    from triggerctl.sweep.sequential import plan_sweep

    with LiveRun(console.err) as live:
        sweep = plan_sweep(
            folder,
            loaded,
            seeds=swept,
            strategies=words(strategy_words),
            dont_overwrite=dont_overwrite,
            device=device,
            command=globals_.line,
            progress=download_listener(live),
        )
    if dry_run:
        _show_plan(sweep, as_json=as_json)
        if not as_json:
            console.next_step(globals_.suggest("sweep", experiment, *_again(swept, words(strategy_words))))
        return 0
    return _run(sweep, globals_, experiment, device=device, threads=threads, fail_fast=fail_fast)


def _again(swept: Sequence[int], strategies: Sequence[str]) -> list[str]:
    given = ["--seeds", *map(str, swept)] if swept else []
    return given + (["--strategies", ",".join(strategies)] if strategies else [])


def _show_plan(sweep: Sweep, *, as_json: bool) -> None:
    from triggerctl import console

    rows = []
    for planned in sweep.planned:
        would, why = planned.action.value, planned.reason
        if planned.same_as is not None:
            would, why = (
                "same",
                f"the same run as {planned.same_as.folder.path.relative_to(sweep.folder.path)}",
            )
        path = planned.cell.folder.path.relative_to(sweep.folder.path).as_posix()
        rows.append({"folder": path, "hash": planned.hash, "action": str(would), "reason": why})
    if as_json:
        console.print_json(rows)
        return
    _warnings(sweep)
    table = console.table()
    table.add_column("run", overflow="fold")
    table.add_column("hash", no_wrap=True)
    table.add_column("would", no_wrap=True)
    table.add_column("why", overflow="fold")
    for row in rows:
        table.add_row(row["folder"], row["hash"][:12], row["action"], row["reason"])
    console.out.print(table)


def _warnings(sweep: Sweep) -> None:
    from triggerctl import console

    for text in dict.fromkeys(text for planned in sweep.planned for text in planned.warnings):
        console.warn(text)


def _run(
    sweep: Sweep, globals_: Globals, experiment: str, *, device: str, threads: int | None, fail_fast: bool
) -> int:
    from triggerctl import console
    from triggerctl.cli.figures import figures_of
    from triggerctl.cli.signals import stop_on_signals
    from triggerctl.cli.sweep_screen import SweepScreen, outcome_table
    from triggerctl.sweep.sequential import Outcome, run_sweep

    _warnings(sweep)
    with SweepScreen(console.out, sweep) as screen, stop_on_signals() as stop:
        outcomes = run_sweep(
            sweep,
            screen=screen,
            stop=stop,
            figures=figures_of,
            device=device,
            threads=threads,
            fail_fast=fail_fast,
        )
    console.out.print()
    console.out.print(outcome_table(sweep, outcomes))
    for ended in outcomes:
        if ended.error is not None:
            console.show_error(ended.error)
    if stop.is_set():
        console.next_step(globals_.line)
        return 130
    if _any(outcomes, Outcome.FAILED):
        console.next_step(globals_.suggest("status", experiment), globals_.line)
        return 1
    console.next_step(globals_.suggest("report", experiment))
    return 0


def _any(outcomes: Sequence[CellOutcome], outcome: str) -> bool:
    return any(ended.outcome == outcome for ended in outcomes)
