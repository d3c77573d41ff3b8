"""One run from its plan to its results: the engine's one entry. Whatever moment it dies at, the same call
goes on."""

from __future__ import annotations

import threading
from pathlib import Path

import torch

from triggerctl.experiment.atomic import clear_unfinished_writes, drop_folder, make_folder
from triggerctl.experiment.cache import Cache
from triggerctl.experiment.claim import Claim, claim
from triggerctl.model.causal import CausalModel
from triggerctl.model.device import resolve_device
from triggerctl.model.keeper import ModelKeeper
from triggerctl.training.begun import Begun
from triggerctl.training.checkpoints import check_fits
from triggerctl.training.decision import Action, decide
from triggerctl.training.events import Listener
from triggerctl.training.execution import Execution
from triggerctl.training.followers import devices_of, group_of
from triggerctl.training.out_of_memory import Exhausted, OutOfMemoryRunError, free_memory
from triggerctl.training.outcome import Figures
from triggerctl.training.plan import RunPlan
from triggerctl.training.planes import plane_store
from triggerctl.training.recorder import run_log
from triggerctl.training.settle import settle
from triggerctl.training.setup import prepare
from triggerctl.training.stopwatch import Stopwatch
from triggerctl.training.trackers import check_tracker


def execute(
    plan: RunPlan,
    *,
    listener: Listener,
    stop: threading.Event,
    figures: Figures,
    device: str = "auto",
    threads: int | None = None,
    processes: int = 1,
    cache: bool = True,
    keeper: ModelKeeper | None = None,
    seconds_before: float = 0.0,
) -> Path:
    """Train, evaluate and leave results, `figures` drawn among them; returns the results folder.

    `processes` share the work of each update and evaluation, on a GPU each or all on the CPU, with `threads`
    each (by default an equal part of the cores). How many they are changes nothing but rounding and speed.
    `cache` false: nothing computed is taken from the cache or left there. `keeper`: of who trains many runs
    in this process, so that they share a loaded model. Neither changes a number. `seconds_before`: what the
    process had spent on this run before, loading libraries and planning.

    `stop`, once set, ends the run at its next update with a checkpoint. A run that another process finished
    in the meantime is not trained again. Raises InputError before anything is written where something can't
    be used, BusyError where another process works here, RunError where the run fails (state `failed`),
    InterruptedRunError once it has stopped (state `interrupted`)."""
    shelf = Cache(enabled=cache)
    make_folder(plan.folder.path)
    with claim(plan.folder.path) as held:
        action, _, finished = decide(plan.folder, plan.config, plan.hash, fresh=plan.fresh)
        if action is Action.SKIP and finished is not None:
            settle(plan, finished)
            return finished
        clear_unfinished_writes(plan.folder.path)
        chosen = resolve_device(device)
        if chosen.type == "cuda" and torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats(chosen)  # another run of this process may have held more
        check_tracker(plan.config.finetune_config.report_to)
        exhausted: Exhausted | None = None
        while True:
            begun = Begun.look(plan, exhausted, processes=processes, threads=threads)
            # After memory ran out, a checkpoint tells of the time before it too.
            goes_on_here = exhausted is not None and begun.checkpoint is not None
            watch = Stopwatch({} if goes_on_here else {"start": seconds_before})
            try:
                results, model = _attempt(
                    plan, begun, chosen, shelf, keeper, watch, held, listener, stop, figures
                )
                break
            except OutOfMemoryRunError as error:
                exhausted = error.exhausted
            # Out here nothing holds the model any more.
            free_memory()
        shelf.trim()
        if keeper is not None:
            keeper.put_back(model)
        return results


def _attempt(
    plan: RunPlan,
    begun: Begun,
    device: torch.device,
    cache: Cache,
    keeper: ModelKeeper | None,
    watch: Stopwatch,
    held: Claim,
    listener: Listener,
    stop: threading.Event,
    figures: Figures,
) -> tuple[Path, CausalModel]:
    """Go on from where the run stands; returns its results folder and the model.

    Raises OutOfMemoryRunError where it may go on with less at a time."""
    devices = devices_of(device, begun.processes)
    torch.set_num_threads(begun.threads)
    with group_of(devices, plan, begun, cache=cache.enabled) as group:
        prepared = prepare(
            plan, device, listener, cache=cache, keeper=keeper, watch=watch, checkpointing=begun.checkpointing
        )
        if begun.checkpoint is not None:
            check_fits(begun.checkpoint, prepared.device, prepared.dtype, prepared.optimiser)
        planes = plane_store(plan, prepared, threads=begun.threads, processes=begun.processes)
        if planes is not None and begun.is_at_the_start:
            planes.find()
        if plan.fresh and begun.exhausted is None:
            drop_folder(plan.folder.checkpoint(plan.hash))
        with run_log(plan.folder.log):
            run = Execution(plan, prepared, begun, planes, listener, stop, held, group, watch)
            return run.to_the_end(figures), prepared.model
