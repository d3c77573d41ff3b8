"""Runs as tasks of a Ray cluster, one each: the cluster that RAY_ADDRESS names, else one begun on this
machine for the sweep. Where a run is placed is Ray's affair. A run whose node or process died is begun again
by Ray, on another node where need be, and goes on from its last checkpoint; the folders must therefore be
seen from every node under the same path."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from triggerctl.errors import InputError, InterruptedRunError, RunError, TriggerctlError, first_line
from triggerctl.experiment.state import last_lines
from triggerctl.sweep.cell import CellJob, CellOutcome, Outcome, RunSettings, write_down_failure
from triggerctl.sweep.check import Checked
from triggerctl.sweep.launchers.base import TICK_SECONDS, refuse_numbered_gpu
from triggerctl.sweep.launchers.ray_cluster import Node, NodeWatch, connect, living_nodes
from triggerctl.sweep.launchers.ray_worker import carried_environment, obey
from triggerctl.sweep.launchers.waiting import Waiting
from triggerctl.sweep.launchers.worker import Check, Order, Train

RETRIES = 3
"""How often Ray begins a run again whose process or node died."""


@dataclass(frozen=True, slots=True)
class Share:
    """What each run is given: `cpus` are as many as its threads, over all of its processes."""

    cpus: int
    gpus: int
    settings: RunSettings


def share_out(asked: int | None, nodes: Sequence[Node], settings: RunSettings, *, cells: int) -> Share:
    """By rule, from what does not change while a sweep goes on: the cluster's nodes and the cells of its
    whole grid.

    asked: runs at once as the user wants it, None for as many as the cluster bears.
    Raises InputError for a device that is for this machine to choose."""
    refuse_numbered_gpu(settings.device, "Ray")
    width = settings.gpus_per_run
    with_gpu = [node for node in nodes if node.gpus]
    if settings.device == "cuda" or (settings.device == "auto" and with_gpu):
        by_gpu = min((int(node.cpus // node.gpus) for node in with_gpu), default=1)
        threads = settings.threads or max(1, by_gpu)
        return Share(threads * width, width, replace(settings, device="cuda", threads=threads))
    total = sum(int(node.cpus) for node in nodes)
    smallest = min((int(node.cpus) for node in nodes if node.cpus >= 1), default=1)
    at_once = max(1, min(asked or total, cells) * width)
    threads = settings.threads or max(1, min(total // at_once, smallest // width))
    device = "cpu" if settings.device == "auto" else settings.device
    return Share(threads * width, 0, replace(settings, device=device, threads=threads))


class RayLauncher:
    """`jobs`: how many runs at once at most, None for as many as the cluster bears; `warn`: says what keeps
    the check of the runs waiting."""

    def __init__(self, jobs: int | None = None, *, warn: Callable[[str], None] | None = None) -> None:
        self._asked = jobs
        self._warn = warn
        self._cells = 1
        self._ray: Any = None

    def __enter__(self) -> RayLauncher:
        """Raises InputError where Ray is not installed."""
        try:
            import ray  # noqa: F401 - only whether it is there
        except ImportError as error:
            raise InputError(
                "Ray is not installed", where="--launcher ray", mend="pip install 'triggerctl[ray]'"
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        if self._ray is not None:
            self._ray.shutdown()
            self._ray = None

    def check(self, jobs: Sequence[CellJob], settings: RunSettings, *, stop: threading.Event) -> Checked:
        """By a node, as a task with what a run would be given.

        Raises InputError where no cluster can be had, RunError where the node can't do it,
        InterruptedRunError once `stop` is set."""
        self._cells = max(1, len(jobs))
        ray = self._cluster()
        share = self._share(settings)
        if self._warn is not None and not self._has_room(share):
            self._warn(self._told(share))
        task = self._begin(Check(tuple(jobs), share.settings), share, name="check")
        while not ray.wait([task], timeout=TICK_SECONDS)[0]:
            if stop.is_set():
                ray.cancel(task)
                raise InterruptedRunError(
                    "stopped before any run began", mend="the same command begins again"
                )
        try:
            answer: Checked = pickle.loads(ray.get(task))
        except ray.exceptions.RayError as error:
            raise _not_begun(error, "check the runs") from error
        return answer

    def launch(
        self,
        jobs: Sequence[CellJob],
        settings: RunSettings,
        *,
        began: Callable[[CellJob], None],
        ended: Callable[[CellOutcome], None],
        note: Callable[[str], None],
        tick: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        """Hand the cells to Ray and wait until none is left that is not done or being done. A run that
        another process is at is waited for."""
        ray = self._cluster()
        share = self._share(settings)
        note(self._told(share))
        watch = NodeWatch(living_nodes(ray))
        queue = deque(jobs)
        waiting = Waiting()
        running: dict[Any, CellJob] = {}
        cancelled = False
        while queue or waiting or running:
            if stop.is_set() and not cancelled:
                queue.clear()
                waiting.clear()
                for task in running:
                    ray.cancel(task)
                cancelled = True
            queue.extend(waiting.ready())
            while queue and (self._asked is None or len(running) < self._asked):
                job = queue.popleft()
                task = self._begin(
                    Train(job, share.settings), share, name=str(job.folder.path), memory=job.memory_bytes
                )
                running[task] = job
                began(job)
            for task in self._ready(list(running)):
                job = running.pop(task)
                outcome = self._outcome(task, job, stopping=stop.is_set())
                if outcome is None:
                    continue
                if outcome.outcome is not Outcome.BUSY or stop.is_set():
                    ended(outcome)
                elif waiting.add(job):
                    note(f"waiting: {outcome.reason}")
            for address in watch.lost(ray):
                note(f"Ray node {address} is gone: its runs go on elsewhere from their last checkpoints")
            tick()

    def _cluster(self) -> Any:
        """The `ray` module, connected. Raises InputError where that fails."""
        if self._ray is None:
            self._ray = connect(os.environ.get("RAY_ADDRESS"))
        return self._ray

    def _share(self, settings: RunSettings) -> Share:
        return share_out(self._asked, living_nodes(self._ray), settings, cells=self._cells)

    def _has_room(self, share: Share) -> bool:
        return any(node.cpus >= share.cpus and node.gpus >= share.gpus for node in living_nodes(self._ray))

    def _told(self, share: Share) -> str:
        nodes = living_nodes(self._ray)
        each = f"{share.cpus} CPU{'s' if share.cpus != 1 else ''}"
        if share.gpus:
            each += f" and {share.gpus} GPU{'s' if share.gpus != 1 else ''}"
        text = f"Ray: {len(nodes)} node{'s' if len(nodes) != 1 else ''}, {each} for each run"
        if not self._has_room(share):
            text += "; no node has that now, so the runs wait for one"
        return text

    def _begin(self, order: Order, share: Share, *, name: str, memory: int | None = None) -> Any:
        """Hand an order to Ray; returns the reference to its answer.

        memory: bytes of a CPU's memory that it will need, never more asked for than the largest node has: an
                estimate must not keep a run from being tried."""
        largest = max((node.memory for node in living_nodes(self._ray)), default=0.0)
        options: dict[str, Any] = {"num_cpus": share.cpus, "num_gpus": share.gpus, "name": name}
        if memory and largest and not share.gpus:
            options["memory"] = int(min(memory, largest))
        task = self._ray.remote(max_retries=RETRIES, **options)(obey)
        return task.remote(str(Path.cwd()), carried_environment(), pickle.dumps(order))

    def _ready(self, tasks: list[Any]) -> list[Any]:
        """The tasks that have ended, after a moment of waiting."""
        if not tasks:
            time.sleep(TICK_SECONDS)
            return []
        ready: list[Any] = self._ray.wait(tasks, timeout=TICK_SECONDS)[0]
        return ready

    def _outcome(self, task: Any, job: CellJob, *, stopping: bool) -> CellOutcome | None:
        """What became of a run; None where it was called off before it began."""
        errors = self._ray.exceptions
        try:
            found: CellOutcome = pickle.loads(self._ray.get(task))
        except errors.TaskCancelledError:
            return None
        except errors.RayTaskError as error:
            return _failed(job, _not_begun(error, f"begin {job.folder.path}"))
        except errors.RayError as error:
            how = f"its process or node died: {first_line(error)}"
            if stopping:
                return CellOutcome(job.folder, Outcome.INTERRUPTED, how)
            return _failed(job, _died(job, how))
        return found


def _not_begun(error: Exception, what: str) -> RunError:
    cause = getattr(error, "cause", None) or error
    return RunError(
        f"a Ray node could not {what}",
        why=f"{type(cause).__name__}: {first_line(cause)}",
        mend="every node needs this triggerctl, and the experiment's folder under the same path",
    )


def _died(job: CellJob, how: str) -> RunError:
    said = last_lines(job.folder.log, 1)
    return RunError(
        f"{how}, {RETRIES + 1} times at this run",
        where=str(job.folder.path),
        why=f"its log ends: {said[0]}" if said else None,
        mend="a smaller per_device_train_batch_size, or fewer --jobs; the same command goes on",
    )


def _failed(job: CellJob, error: TriggerctlError) -> CellOutcome:
    write_down_failure(job, error, since=datetime.now(UTC))
    return CellOutcome(job.folder, Outcome.FAILED, str(error), error=error)
