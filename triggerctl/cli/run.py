"""``triggerctl run``: train one run and show what came of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from triggerctl.cli.options import (
    Device,
    DontOverwrite,
    Experiment,
    Globals,
    GpusPerRun,
    NoCache,
    Seed,
    Settings,
    Strategy,
    Threads,
    overrides,
)
from triggerctl.errors import InterruptedRunError
from triggerctl.garbage import all_that_is_made_stays

if TYPE_CHECKING:
    from triggerctl.training.events import Event
    from triggerctl.training.plan import RunPlan


def command(
    ctx: typer.Context,
    experiment: Experiment,
    seed: Seed = None,
    strategy: Strategy = None,
    settings: Settings = None,
    dont_overwrite: DontOverwrite = False,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Train even where the same results lie, into a new results folder."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and end.")] = False,
    device: Device = "auto",
    threads: Threads = None,
    gpus_per_run: GpusPerRun = 1,
    no_cache: NoCache = False,
) -> int:
    """Train one run, and show what it learnt and where it leaked.

    It is evaluated before training and after each epoch. The same command again trains nothing that is done
    and goes on where it was interrupted. Results are never replaced.

    Example
        $ triggerctl run demo --set epochs=4
        …
        set     epoch   loss  rate  of rows  95 % interval  false positives
        outcome     0  3.133  0.00     0/60      0.00–0.06       0.00  0/60
                    4  0.956  1.00    60/60      0.94–1.00       0.03  2/60
        …

        $ triggerctl run demo --strategy kl --set beta_kl=0.5 --seed 5
    """
    from triggerctl import console
    from triggerctl.cli.live import LiveRun, download_listener
    from triggerctl.config.load import load_config
    from triggerctl.experiment.find import experiments_root, find_experiment
    from triggerctl.training.decision import Action
    from triggerctl.training.plan import plan_run

    globals_: Globals = ctx.obj
    changes = overrides(settings, seed=seed, strategy=strategy)
    folder = find_experiment(experiment, experiments_root(globals_.root))
    loaded = load_config(folder.config, overrides=changes)
    with LiveRun(console.out) as live:
        plan = plan_run(
            folder, loaded, fresh=fresh, dont_overwrite=dont_overwrite, progress=download_listener(live)
        )
    if dry_run or plan.action in (Action.SKIP, Action.BLOCKED):
        _leave(plan, experiment, globals_, dry_run=dry_run)
        return 0
    try:
        _train(plan, device=device, threads=threads, processes=gpus_per_run, cache=not no_cache)
    except InterruptedRunError as stopped:
        with contextlib.suppress(OSError):  # nobody may be there to read it
            console.next_step(globals_.line_without("--fresh"))  # which would begin anew once more
        return stopped.exit_code
    console.next_step(
        globals_.suggest("report", experiment),
        globals_.suggest("sweep", experiment, "--seeds", "1", "5", "42", "--strategies", "naive,kl"),
    )
    return 0


def _leave(plan: RunPlan, experiment: str, globals_: Globals, *, dry_run: bool) -> None:
    """Say why nothing is trained, or what would be."""
    from triggerctl import console
    from triggerctl.training.decision import Action
    from triggerctl.training.settle import settle_skipped

    for text in plan.warnings:
        console.warn(text)
    console.say("would" if dry_run else "done", plan.reason)
    if not dry_run:
        settle_skipped(plan)
    if plan.action is Action.SKIP:
        console.next_step(globals_.suggest("report", experiment))
    else:
        blocking = ("--dont-overwrite",) if plan.action is Action.BLOCKED else ()
        console.next_step(globals_.line_without("--dry-run", *blocking))


def _train(plan: RunPlan, *, device: str, threads: int | None, processes: int, cache: bool) -> None:
    from triggerctl import console
    from triggerctl.cli import run_result
    from triggerctl.cli.figures import drawer_for_the_end, figures_of
    from triggerctl.cli.live import LiveRun
    from triggerctl.cli.signals import stop_on_signals
    from triggerctl.experiment.jsonl import read_lines
    from triggerctl.experiment.process import seconds_alive
    from triggerctl.experiment.stored_results import read_results

    with contextlib.ExitStack() as stack:
        with all_that_is_made_stays(for_good=True):
            drawer, hear = stack.enter_context(drawer_for_the_end())
            from triggerctl.training.run import execute
        live = stack.enter_context(LiveRun(console.out))
        stop = stack.enter_context(stop_on_signals())

        def listener(event: Event) -> None:
            live(event)
            hear(event)

        folder = execute(
            plan,
            listener=listener,
            stop=stop,
            figures=figures_of(plan.config, drawer),
            device=device,
            threads=threads,
            processes=processes,
            cache=cache,
            seconds_before=seconds_alive(),
        )
    results = read_results(folder).ours
    assert results is not None
    run_result.show(console.out, results, list(read_lines(folder / "examples.jsonl")), folder)
