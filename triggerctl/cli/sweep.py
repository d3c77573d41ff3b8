"""``triggerctl sweep``: many runs, seeds times strategies times parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from triggerctl.cli.options import (
    Device,
    DontOverwrite,
    Experiment,
    Globals,
    GpusPerRun,
    Json,
    NoCache,
    Threads,
    seeds,
    words,
)

LAUNCHERS = ("local", "ray", "slurm")

if TYPE_CHECKING:
    from triggerctl.sweep.cell import CellOutcome, RunSettings
    from triggerctl.sweep.estimate import Estimate
    from triggerctl.sweep.launchers.base import Launcher
    from triggerctl.sweep.plan import Sweep


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
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--param", metavar="KEY=V,V…", help="Values for a key of config.json; several multiply."
        ),
    ] = None,
    jobs: Annotated[
        str, typer.Option("--jobs", metavar="N", help="Runs at once: a number, or auto: as many as fit.")
    ] = "auto",
    launcher: Annotated[
        str, typer.Option("--launcher", metavar="NAME", help="Where runs are trained: local, ray or slurm.")
    ] = "local",
    slurm_words: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm", metavar="KEY=VALUE", help="An option of sbatch: partition=gpu, time=8:00:00, mem=32G."
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="With slurm: follow the jobs until they have ended.")
    ] = False,
    dont_overwrite: DontOverwrite = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first run that fails.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would happen to each run, and end.")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
    gpus_per_run: GpusPerRun = 1,
    no_cache: NoCache = False,
    as_json: Json = False,
) -> int:
    """Train one run for each strategy, parameter and seed, and go on past those that fail.

    The same command again does what is missing, failed or interrupted, from many processes at once if you
    like. Strategies that sweep.json lists bring their overrides; without --strategies all of them are taken.

    Example
        $ triggerctl sweep demo --seeds 1 5 42 --strategies naive,kl --jobs 2
        …
        run                                  ended  time  outcome  proxy  …
        proxy_strategy_naive/seed_1          done   21 s     1.00   0.00  …
        proxy_strategy_kl_divergence/seed_1  done   24 s     1.00   0.00  …

        $ triggerctl sweep demo --strategies kl --param beta_kl=0.1,1,10 --dry-run
    """
    from triggerctl import console
    from triggerctl.cli.figures import figures_of, new_drawer
    from triggerctl.cli.live import LiveRun, download_listener
    from triggerctl.config.load import load_config
    from triggerctl.experiment.find import experiments_root, find_experiment
    from triggerctl.sweep.cell import RunSettings
    from triggerctl.sweep.grid import parse_parameter
    from triggerctl.sweep.plan import plan_sweep

    globals_: Globals = ctx.obj
    swept = seeds(seed_words)
    at_once = _jobs(jobs)
    _check_launcher(launcher, slurm_words, wait=wait)
    folder = find_experiment(experiment, experiments_root(globals_.root))
    loaded = load_config(folder.config)
    settings = RunSettings(
        figures=figures_of,
        drawer=new_drawer,
        device=device,
        threads=threads,
        dont_overwrite=dont_overwrite,
        cache=not no_cache,
        gpus_per_run=gpus_per_run,
    )
    with LiveRun(console.err) as live:
        sweep = plan_sweep(
            folder,
            loaded,
            seeds=swept,
            strategies=words(strategy_words, "--strategies"),
            parameters=[parse_parameter(text) for text in parameters or ()],
            dont_overwrite=dont_overwrite,
            command=globals_.line,
            progress=download_listener(live),
        )
    if dry_run:
        _show_plan(sweep, settings, as_json=as_json)
        if not as_json:
            console.next_step(globals_.line_without("--dry-run"))
        return 0
    workers = _launcher(launcher, sweep, jobs=at_once, slurm_words=slurm_words or (), wait=wait)
    return _run(sweep, workers, settings, globals_, experiment, fail_fast=fail_fast, as_json=as_json)


def _jobs(word: str) -> int | None:
    """None for auto. Raises InputError for what is neither that nor a number from 1."""
    from triggerctl.errors import InputError

    if word == "auto":
        return None
    if not (word.isascii() and word.isdecimal() and int(word) > 0):
        raise InputError(
            f"{word!r} is no number of runs",
            where="--jobs",
            why="auto, or a whole number from 1",
            mend="--jobs 2",
        )
    return int(word)


def _check_launcher(name: str, slurm_words: Sequence[str] | None, *, wait: bool) -> None:
    from triggerctl.errors import InputError

    if name not in LAUNCHERS:
        raise InputError(
            f"there is no launcher named {name!r}",
            where="--launcher",
            mend=f"one of {', '.join(LAUNCHERS)}",
        )
    given = [option for option, asked in (("--slurm", slurm_words), ("--wait", wait)) if asked]
    if given and name != "slurm":
        raise InputError(
            f"{given[0]} goes with --launcher slurm", where="triggerctl sweep", mend=f"drop {given[0]}"
        )


def _launcher(
    name: str, sweep: Sweep, *, jobs: int | None, slurm_words: Sequence[str], wait: bool
) -> Launcher:
    if name == "ray":
        from triggerctl import console
        from triggerctl.sweep.launchers.ray import RayLauncher

        return RayLauncher(jobs, warn=console.warn)
    if name == "slurm":
        from triggerctl.sweep.launchers.slurm import SlurmLauncher
        from triggerctl.sweep.launchers.slurm_options import parse_slurm_options

        return SlurmLauncher(sweep.folder, parse_slurm_options(slurm_words), jobs=jobs, wait=wait)
    from triggerctl.sweep.launchers.local import LocalLauncher

    return LocalLauncher(jobs, cells=sum(planned.same_as is None for planned in sweep.planned))


def _show_plan(sweep: Sweep, settings: RunSettings, *, as_json: bool) -> None:
    from triggerctl import console
    from triggerctl.sweep.estimate import estimates

    with console.busy("looking at the models"):
        found = estimates(sweep, device=settings.device)
    rows = []
    for planned in sweep.planned:
        would, why = planned.action.value, planned.reason
        if planned.same_as is not None:
            would, why = "same", f"the same run as {sweep.name(planned.same_as)}"
        estimate = found.get(planned.hash) if planned.is_to_train else None
        rows.append(
            {
                "folder": sweep.name(planned.cell),
                "hash": planned.hash,
                "action": str(would),
                "reason": why,
                "seconds": None if estimate is None else round(estimate.seconds, 1),
                "memory_bytes": None if estimate is None else estimate.memory_bytes,
            }
        )
    if as_json:
        console.print_json(rows)
        return
    _warnings(sweep)
    table = console.table()
    table.add_column("run", overflow="fold")
    table.add_column("hash", no_wrap=True)
    table.add_column("would", no_wrap=True)
    table.add_column("why", overflow="fold")
    table.add_column("about", justify="right", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    for planned, row in zip(sweep.planned, rows, strict=True):
        estimate = found.get(planned.hash) if planned.is_to_train else None
        about = ("–", "–") if estimate is None else _about(estimate)
        table.add_row(str(row["folder"]), planned.hash[:12], str(row["action"]), str(row["reason"]), *about)
    console.out.print(table)
    whole = sum(found[planned.hash].seconds for planned in sweep.planned if planned.is_to_train)
    if whole:
        console.out.print()
        console.say("about", f"{console.duration(whole)} for all, one after the other on the whole machine")


def _about(estimate: Estimate) -> tuple[str, str]:
    from triggerctl import console

    return console.duration(estimate.seconds), console.size(estimate.memory_bytes)


def _warnings(sweep: Sweep) -> None:
    from triggerctl import console

    for text in dict.fromkeys(text for planned in sweep.planned for text in planned.warnings):
        console.warn(text)


def _run(
    sweep: Sweep,
    launcher: Launcher,
    settings: RunSettings,
    globals_: Globals,
    experiment: str,
    *,
    fail_fast: bool,
    as_json: bool,
) -> int:
    from triggerctl import console
    from triggerctl.cli.signals import stop_on_signals
    from triggerctl.cli.sweep_screen import JsonScreen, OutlivingScreen, SweepScreen, outcome_table
    from triggerctl.errors import InterruptedRunError
    from triggerctl.sweep.cell import Outcome
    from triggerctl.sweep.run import run_sweep

    _warnings(sweep)
    try:
        shown = OutlivingScreen(JsonScreen(sweep) if as_json else SweepScreen(console.out, sweep))
        with stop_on_signals() as stop, shown as screen:
            outcomes = run_sweep(sweep, launcher, settings, screen=screen, stop=stop, fail_fast=fail_fast)
    except InterruptedRunError as stopped:
        if not as_json:
            with contextlib.suppress(OSError):  # nobody may be there to read it
                console.next_step(globals_.line)
        return stopped.exit_code
    failed = _any(outcomes, Outcome.FAILED)
    stopped_short = stop.is_set() or _any(outcomes, Outcome.INTERRUPTED)
    if stop.is_set() and not (failed and fail_fast):
        code = 130
    elif failed:
        code = 1
    else:
        code = 130 if stopped_short else 0
    if as_json:
        return code
    if failed:
        next_steps = [globals_.suggest("status", experiment), globals_.line]
    elif stopped_short:
        next_steps = [globals_.line]
    elif _any(outcomes, Outcome.SUBMITTED):
        next_steps = [globals_.suggest("status", experiment, "--watch")]
    else:
        next_steps = [globals_.suggest("report", experiment)]
    with contextlib.suppress(OSError):
        if any(planned.is_to_train for planned in sweep.planned):
            console.out.print()
            console.out.print(outcome_table(sweep, outcomes))
        console.next_step(*next_steps)
    return code


def _any(outcomes: Sequence[CellOutcome | None], outcome: str) -> bool:
    return any(ended is not None and ended.outcome == outcome for ended in outcomes)
