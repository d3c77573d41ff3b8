"""What a worker does with one cell, whoever launched the worker: plan it anew, train or resume it, and say
what became of it. What a worker is given and what it returns can be pickled. Torch is imported only when
there is something to train."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from triggerctl import disk
from triggerctl.config.load import LoadedConfig
from triggerctl.errors import BusyError, InputError, InterruptedRunError, LostClaimError, TriggerctlError
from triggerctl.experiment.atomic import disk_errors, make_folder
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.garbage import all_that_is_made_stays
from triggerctl.training.decision import Action
from triggerctl.training.plan import RunPlan, plan_run
from triggerctl.training.settle import settle_failed, settle_skipped

if TYPE_CHECKING:
    from triggerctl.config.models import ExperimentConfig
    from triggerctl.model.keeper import ModelKeeper
    from triggerctl.training.events import Event
    from triggerctl.training.outcome import Figures


class Outcome(StrEnum):
    """What became of a cell. KEPT: results of another configuration, left alone as asked; BUSY: another
    process is at it; SAME: another cell here is the same run; SUBMITTED: a cluster will train it."""

    DONE = "done"
    SKIPPED = "skipped"
    KEPT = "kept"
    SAME = "same"
    BUSY = "busy"
    SUBMITTED = "submitted"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class CellJob:
    """One run for a worker. `hash`: what the plan gave it; `memory_bytes`: its estimated peak, None where
    that is not known."""

    folder: ExperimentFolder
    loaded: LoadedConfig
    hash: str
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How runs are made, alike for all of a sweep, and nothing that changes which runs they are.

    figures: what draws the figures of a run with a configuration; a function found by its name, so that it
             reaches any worker. It is also given what `drawer` made.
    drawer:  what makes the tool for figures that a worker keeps from run to run; likewise a function.
    threads: CPU threads of a run, None for the default.
    cache:   whether what is computed may be shared."""

    figures: Callable[[ExperimentConfig, Any], Figures]
    drawer: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    device: str = "auto"
    threads: int | None = None
    dont_overwrite: bool = False
    cache: bool = True
    gpus_per_run: int = 1


@dataclass(frozen=True, slots=True)
class CellOutcome:
    """A cell that was dealt with. `results` is its results folder where it has finished ones."""

    folder: ExperimentFolder
    outcome: Outcome
    reason: str
    seconds: float = 0.0
    results: Path | None = None
    error: TriggerctlError | None = None


class Tools:
    """What a worker keeps from run to run: a loaded model, and what draws figures. To be closed by who made
    it."""

    def __init__(self) -> None:
        self._keeper: ModelKeeper | None = None
        self._drawer: Any = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def keeper(self) -> ModelKeeper:
        """Of the base model."""
        if self._keeper is None:
            with all_that_is_made_stays(for_good=True):
                import triggerctl.training.run  # noqa: F401  loads all that training takes
                from triggerctl.model.keeper import ModelKeeper

            self._keeper = ModelKeeper()
        return self._keeper

    def drawer(self, settings: RunSettings) -> Any:
        """Of figures. To be asked for early: what it starts takes a while to be ready."""
        if self._drawer is None:
            self._drawer = self._stack.enter_context(settings.drawer())
        return self._drawer


def train_cell(
    job: CellJob, settings: RunSettings, *, stop: threading.Event, tools: Tools | None = None
) -> CellOutcome:
    """Do what is missing of one cell. Never raises: a run that fails is an outcome.

    `stop`, once set, ends the run at its next update with a checkpoint. `tools`: of a worker that takes many
    cells."""
    if tools is None:
        with Tools() as own:
            return train_cell(job, settings, stop=stop, tools=own)
    began, since = time.monotonic(), datetime.now(UTC)
    try:
        # Planned anew: since the sweep was planned, another process may have finished this one.
        plan = plan_run(job.folder, job.loaded, dont_overwrite=settings.dont_overwrite)
        if plan.hash != job.hash:
            raise InputError(
                "this is not the run that the sweep planned",
                where=str(job.folder.path),
                why="its data or its model has changed since",
                mend="the same sweep command again plans anew",
            )
        if plan.action is Action.SKIP:
            settle_skipped(plan)
            return CellOutcome(job.folder, Outcome.SKIPPED, plan.reason, results=plan.finished)
        if plan.action is Action.BLOCKED:
            return CellOutcome(job.folder, Outcome.KEPT, plan.reason)
        results = _train(plan, settings, stop, tools)
        found = CellOutcome(job.folder, Outcome.DONE, plan.reason, results=results)
    except (BusyError, LostClaimError) as error:
        found = CellOutcome(job.folder, Outcome.BUSY, str(error))
    except InterruptedRunError as error:
        found = CellOutcome(job.folder, Outcome.INTERRUPTED, str(error))
    except TriggerctlError as error:
        found = CellOutcome(job.folder, Outcome.FAILED, str(error), error=error)
    except Exception as error:  # noqa: BLE001 - one run's defect must not take the other runs with it
        wrapped = defect(error, job)
        found = CellOutcome(job.folder, Outcome.FAILED, str(wrapped), error=wrapped)
    if found.error is not None:
        write_down_failure(job, found.error, since=since)
    return replace(found, seconds=time.monotonic() - began)


def defect(error: Exception, job: CellJob) -> TriggerctlError:
    """What a cell met with that nobody foresaw, in the words of our own errors."""
    return TriggerctlError(
        f"{type(error).__name__}: {error}",
        where=str(job.folder.path),
        why="this is a defect of triggerctl, not of your input",
        mend=f"triggerctl --debug run {job.folder.path} shows the traceback",
    )


def write_down_failure(job: CellJob, error: TriggerctlError, *, since: datetime) -> None:
    """Have the cell's folder say that it failed, where the run has not said so itself since then."""
    settle_failed(
        job.folder,
        job.hash,
        str(error),
        strategy=job.loaded.config.proxy_strategy,
        seed=job.loaded.config.seed,
        since=since,
    )


def _train(plan: RunPlan, settings: RunSettings, stop: threading.Event, tools: Tools) -> Path:
    keeper = tools.keeper  # loads the engine, with no search for garbage
    from triggerctl.training.run import execute

    with _output_in(plan.folder.log):
        return execute(
            plan,
            listener=_unheard,
            stop=stop,
            figures=settings.figures(plan.config, tools.drawer(settings)),
            device=settings.device,
            threads=settings.threads,
            processes=settings.gpus_per_run,
            cache=settings.cache,
            keeper=keeper,
        )


@contextlib.contextmanager
def _output_in(log: Path) -> Iterator[None]:
    """Within it, what libraries and native code write to standard output and error goes to the run's log:
    nobody looks at a worker, and the screen that it would appear on shows other things."""
    make_folder(log.parent)
    with disk_errors(log):
        file = disk.open_to_append(log)
    before = {number: os.dup(number) for number in (1, 2)}
    try:
        for number in before:
            os.dup2(file.fileno(), number)
        yield
    finally:
        for number, kept in before.items():
            os.dup2(kept, number)
            os.close(kept)
        file.close()


def _unheard(event: Event) -> None:
    """What a run says is in its folder; whoever watches a sweep reads it there."""
