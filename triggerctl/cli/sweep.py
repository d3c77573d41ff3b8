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
    from triggerctl.sweep.launchers.base import Launcher
    from triggerctl.sweep.plan import Sweep


Seeds = Annotated[list[str] | None, typer.Option("--seeds", metavar="N…", help="Seeds: 1 5 42, or 1,5,42.")]
Strategies = Annotated[
    list[str] | None,
    typer.Option("--strategies", metavar="NAME…", help="Strategies: naive kl, or naive,kl."),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="KEY=V,V…", help="Values for a key of config.json; several multiply."),
]
Jobs = Annotated[
    str, typer.Option("--jobs", metavar="N", help="Runs at once: a number, or auto: as many as fit.")
]
LauncherName = Annotated[
    str, typer.Option("--launcher", metavar="NAME", help="Where runs are trained: local, ray or slurm.")
]
SlurmOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm", metavar="KEY=VALUE", help="An option of sbatch: partition=gpu, time=8:00:00, mem=32G."
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="With slurm: follow the jobs until they have ended.")]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first run that fails.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would happen to each run, and end.")]


def command(
    ctx: typer.Context,
    experiment: Experiment,
    seed_words: Seeds = None,
    strategy_words: Strategies = None,
    parameters: Parameters = None,
    jobs: Jobs = "auto",
    launcher: LauncherName = "local",
    slurm_words: SlurmOptions = None,
    wait: Wait = False,
    dont_overwrite: DontOverwrite = False,
    fail_fast: FailFast = False,
    dry_run: DryRun = False,
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
    from triggerctl.cli.figures import figures_of, new_drawer
    from triggerctl.sweep.cell import RunSettings

    globals_: Globals = ctx.obj
    swept = seeds(seed_words)
    at_once = _jobs(jobs)
    _check_launcher(launcher, slurm_words, wait=wait)
    settings = RunSettings(
        figures=figures_of,
        drawer=new_drawer,
        device=device,
        threads=threads,
        dont_overwrite=dont_overwrite,
        cache=not no_cache,
        gpus_per_run=gpus_per_run,
    )
    sweep = _planned(
        experiment, globals_, swept, strategy_words, parameters or (), dont_overwrite=dont_overwrite
    )
    if dry_run:
        from triggerctl.cli.dry_run import show_dry_run

        show_dry_run(sweep, settings, globals_, as_json=as_json)
        return 0
    workers = _launcher(launcher, sweep, jobs=at_once, slurm_words=slurm_words or (), wait=wait)
    return _run(sweep, workers, settings, globals_, experiment, fail_fast=fail_fast, as_json=as_json)


def _jobs(word: str) -> int | None:
    """None for auto. Raises InputError for what is neither that nor a number from 1."""
    from triggerctl.errors import InputError

    if word == "auto":
        return None
    if not (word.isascii() and word.isdecimal() and len(word) < 10 and int(word) > 0):
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


def _planned(
    experiment: str,
    globals_: Globals,
    swept: Sequence[int],
    strategy_words: Sequence[str] | None,
    parameters: Sequence[str],
    *,
    dont_overwrite: bool,
) -> Sweep:
    """The sweep on paper; its data is downloaded where it is not here yet."""
    from triggerctl import console
    from triggerctl.cli.live import LiveRun, download_listener
    from triggerctl.config.load import load_config
    from triggerctl.experiment.find import experiments_root, find_experiment
    from triggerctl.sweep.grid import parse_parameter
    from triggerctl.sweep.plan import plan_sweep

    folder = find_experiment(experiment, experiments_root(globals_.root))
    loaded = load_config(folder.config)
    with LiveRun(console.err) as live:
        return plan_sweep(
            folder,
            loaded,
            seeds=swept,
            strategies=words(strategy_words, "--strategies"),
            parameters=[parse_parameter(text) for text in parameters],
            dont_overwrite=dont_overwrite,
            command=globals_.line,
            progress=download_listener(live),
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
    from triggerctl.cli.sweep_screen import JsonScreen, OutlivingScreen, SweepScreen, outcome_table, warn_of
    from triggerctl.errors import InterruptedRunError
    from triggerctl.sweep.run import run_sweep

    warn_of(sweep)
    try:
        shown = OutlivingScreen(JsonScreen(sweep) if as_json else SweepScreen(console.out, sweep))
        with stop_on_signals() as stop, shown as screen:
            outcomes = run_sweep(sweep, launcher, settings, screen=screen, stop=stop, fail_fast=fail_fast)
    except InterruptedRunError as stopped:
        if not as_json:
            with contextlib.suppress(OSError):  # nobody may be there to read it
                console.next_step(globals_.line)
        return stopped.exit_code
    code = _exit_code(outcomes, asked_to_stop=stop.is_set(), fail_fast=fail_fast)
    if as_json:
        return code
    with contextlib.suppress(OSError):
        if any(planned.is_to_train for planned in sweep.planned):
            console.out.print()
            console.out.print(outcome_table(sweep, outcomes))
        console.next_step(*_next_steps(outcomes, globals_, experiment, stopped_short=stop.is_set()))
    return code


def _exit_code(outcomes: Sequence[CellOutcome | None], *, asked_to_stop: bool, fail_fast: bool) -> int:
    """A failure counts before an interruption, but for one that the user asked for; --fail-fast stops the
    others by itself."""
    failed = _any(outcomes, "failed")
    if asked_to_stop and not (failed and fail_fast):
        return 130
    if failed:
        return 1
    return 130 if asked_to_stop or _any(outcomes, "interrupted") else 0


def _next_steps(
    outcomes: Sequence[CellOutcome | None], globals_: Globals, experiment: str, *, stopped_short: bool
) -> list[Sequence[str]]:
    if _any(outcomes, "failed"):
        return [globals_.suggest("status", experiment), globals_.line]
    if stopped_short or _any(outcomes, "interrupted"):
        return [globals_.line]
    if _any(outcomes, "submitted"):
        return [globals_.suggest("status", experiment, "--watch")]
    return [globals_.suggest("report", experiment)]


def _any(outcomes: Sequence[CellOutcome | None], outcome: str) -> bool:
    return any(ended is not None and ended.outcome == outcome for ended in outcomes)
