"""Worker processes on this machine, each of which takes many runs. A worker that dies takes nothing with it:
its run is given to another, which goes on from the last checkpoint."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess

from triggerctl.cores import available_cores
from triggerctl.errors import InterruptedRunError, RunError
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.state import last_lines
from triggerctl.sweep.cell import CellJob, CellOutcome, Outcome, RunSettings, write_down_failure
from triggerctl.sweep.check import Checked
from triggerctl.sweep.launchers.base import TICK_SECONDS
from triggerctl.sweep.launchers.waiting import Waiting
from triggerctl.sweep.launchers.worker import Check, Order, Stop, Train, work

DEATHS = 3
"""How often a run, or the check of all runs, may take its worker with it before it counts as failed."""
MEMORY_SHARE = 0.8
"""Of the device's memory, what runs side by side may need by their estimates."""


@dataclass(frozen=True, slots=True)
class Room:
    """How the machine is shared: `jobs` runs at once, each with `threads` CPU threads; `pins`: for each
    worker what CUDA_VISIBLE_DEVICES is to be, None where it stays."""

    jobs: int
    threads: int | None
    pins: tuple[str | None, ...]


def share_out(asked: int | None, checked: Checked, settings: RunSettings, *, cells: int) -> Room:
    """By rule, from what does not change while a sweep goes on: the cells of its grid, cores, devices and
    their whole memory. So a sweep that is taken up again trains its runs with as many threads as before.

    asked: runs at once as the user wants it, None for as many as there are cores (or GPUs) and room for."""
    cores = available_cores()
    if settings.device.startswith("cuda:"):
        # It is counted among the devices as they are: a worker that sees its own alone would not find it.
        jobs = asked or 1
        return Room(jobs, settings.threads, (None,) * jobs)
    if checked.kind == "cuda":
        most = max(1, checked.devices // settings.gpus_per_run)
        jobs = asked or min(most, cells)
        pins = tuple(_pin(place % most, settings.gpus_per_run) for place in range(jobs))
        return Room(max(1, jobs), settings.threads, pins if checked.devices > 1 else (None,) * jobs)
    jobs = asked or min(cores // settings.gpus_per_run, cells)
    needed = max(checked.memory.values(), default=0) * settings.gpus_per_run
    if asked is None and needed:
        jobs = min(jobs, int(MEMORY_SHARE * checked.capacity // needed))
    jobs = max(1, jobs)
    threads = settings.threads or max(1, cores // (jobs * settings.gpus_per_run))
    return Room(jobs, threads, (None,) * jobs)


def _pin(place: int, width: int) -> str:
    """The devices of one worker, by their names in CUDA_VISIBLE_DEVICES where that is set already."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else None
    indices = range(place * width, (place + 1) * width)
    return ",".join(names[i] if names and i < len(names) else str(i) for i in indices)


class LocalLauncher:
    """`jobs`: how many runs at once, None for as many as the machine bears; `cells`: of the sweep's whole
    grid."""

    def __init__(self, jobs: int | None, *, cells: int) -> None:
        self._asked = jobs
        self._cells = cells
        self._checked = Checked()
        self._workers: list[_Worker] = []

    def __enter__(self) -> LocalLauncher:
        return self

    def __exit__(self, *error: object) -> None:
        at_once = isinstance(error[1], KeyboardInterrupt)  # a second Ctrl-C does not wait for checkpoints
        for worker in self._workers:
            worker.close()
            if at_once:
                worker.process.kill()
        for worker in self._workers:
            worker.process.join()

    def check(self, jobs: Sequence[CellJob], settings: RunSettings, *, stop: threading.Event) -> Checked:
        """By the first worker, which has to load what that takes anyway; where it dies of it, by another.

        Raises RunError where those die too, InterruptedRunError once `stop` is set."""
        order = Check(tuple(jobs), settings)
        for _ in range(DEATHS):
            worker = self._begin({})
            worker.send(order)
            while not wait([worker.connection], TICK_SECONDS):
                if stop.is_set():
                    worker.process.kill()  # it has begun nothing that would have to be ended well
                    raise InterruptedRunError(
                        "stopped before any run began", mend="the same command begins again"
                    )
            answer = worker.receive()
            if isinstance(answer, Checked):
                break
            self._end(worker)
        else:
            raise RunError(
                f"the process that checks the runs died, {DEATHS} times",
                why=worker.death(),
                mend="the same command tries again; where memory is short, first end what else runs here",
            )
        self._checked = answer
        if answer.devices > 1:
            self._end(worker)  # it sees all of the devices, and is to see its own only
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
        """Have the cells trained by as many workers as `share_out` says, until none is left that is not done
        or being done. A run that another process is at is waited for."""
        room = share_out(self._asked, self._checked, settings, cells=self._cells)
        settings = replace(settings, threads=room.threads)
        queue = deque(jobs)
        waiting = Waiting()
        deaths: Counter[ExperimentFolder] = Counter()
        told = False
        while queue or waiting or any(worker.job for worker in self._workers):
            if stop.is_set() and not told:
                queue.clear()
                waiting.clear()
                for worker in self._workers:
                    worker.send(Stop())
                told = True
            queue.extend(waiting.ready())
            while queue and (idle := self._idle(room)) is not None:
                job = queue.popleft()
                idle.train(job, settings)
                began(job)
            for worker in self._heard():
                given = worker.job
                answer, how = self._answer(worker, stop)
                worker.job = None
                if given is None:
                    continue
                if how is not None:
                    deaths[given.folder] += 1
                    if stop.is_set():
                        ended(CellOutcome(given.folder, Outcome.INTERRUPTED, how))
                    elif deaths[given.folder] < DEATHS:
                        note(f"{how}: {given.folder.path} goes on from its last checkpoint")
                        queue.appendleft(given)
                    else:
                        ended(answer or _died(given, how))
                    continue
                assert answer is not None
                if answer.outcome is not Outcome.BUSY or stop.is_set():
                    ended(answer)
                elif waiting.add(given):
                    note(f"waiting: {answer.reason}")
            tick()

    def _answer(self, worker: _Worker, stop: threading.Event) -> tuple[CellOutcome | None, str | None]:
        """What a worker says of its run; and how the worker was lost over it, None where it goes on."""
        answer = worker.receive()
        if not isinstance(answer, CellOutcome):
            self._end(worker)
            return None, worker.death()
        if answer.outcome is Outcome.INTERRUPTED and not stop.is_set():
            # A signal of its own: all that it is given from now on, it would stop at once.
            self._end(worker)
            return answer, "a worker process was asked to stop"
        return answer, None

    def _idle(self, room: Room) -> _Worker | None:
        """A worker with nothing to do, begun now where there is room for one more."""
        for worker in self._workers:
            if worker.job is None:
                return worker
        if len(self._workers) >= room.jobs:
            return None
        used = Counter(worker.pin for worker in self._workers)
        pin = min(room.pins, key=lambda pin: used[pin])
        return self._begin({} if pin is None else {"CUDA_VISIBLE_DEVICES": pin})

    def _begin(self, environment: Mapping[str, str]) -> _Worker:
        worker = _Worker(environment)
        self._workers.append(worker)
        return worker

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.close()
        worker.process.join()

    def _heard(self) -> list[_Worker]:
        """The workers that have answered or died, after a moment of listening."""
        by_connection = {worker.connection: worker for worker in self._workers}
        if not by_connection:
            time.sleep(TICK_SECONDS)
            return []
        return [by_connection[ready] for ready in wait(list(by_connection), TICK_SECONDS)]  # type: ignore[index]


class _Worker:
    """A process and the connection to it. `job`: the run it is at."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=work, args=(theirs, dict(environment)))
        self.job: CellJob | None = None
        self.pin = environment.get("CUDA_VISIBLE_DEVICES")
        self.process.start()
        theirs.close()

    def train(self, job: CellJob, settings: RunSettings) -> None:
        self.job = job
        self.send(Train(job, settings))

    def send(self, order: Order) -> None:
        """Where the worker is dead, its closed connection is noticed when it is listened to."""
        try:
            self.connection.send(order)
        except OSError:
            return

    def receive(self) -> Checked | CellOutcome | None:
        """Its answer, None where it died without one."""
        try:
            answer: Checked | CellOutcome = self.connection.recv()
        except (EOFError, OSError):
            return None
        return answer

    def close(self) -> None:
        """Let it end: it stops what it is at, with a checkpoint."""
        self.connection.close()

    def death(self) -> str:
        """How it died, for the user."""
        self.process.join(1.0)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = " (often the system, for want of memory)" if name == "SIGKILL" else ""
            return f"a worker process was ended by {name}{hint}"
        return f"a worker process ended with code {code}"


def _died(job: CellJob, how: str) -> CellOutcome:
    said = last_lines(job.folder.log, 1)
    error = RunError(
        f"{how}, {DEATHS} times at this run",
        where=str(job.folder.path),
        why=f"its log ends: {said[0]}" if said else None,
        mend="a smaller per_device_train_batch_size, or fewer --jobs; the same command goes on",
    )
    write_down_failure(job, error, since=datetime.now(UTC))
    return CellOutcome(job.folder, Outcome.FAILED, str(error), error=error)
