"""Worker processes on this machine, each of which takes many runs. A worker that dies takes nothing with it:
its run is given to another, which goes on from the last checkpoint."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from triggerctl.errors import RunError
from triggerctl.experiment.claim import holder_of, is_held
from triggerctl.sweep.cell import CellJob, CellOutcome, Outcome, RunSettings
from triggerctl.sweep.check import Checked
from triggerctl.sweep.launchers.worker import Check, Order, Stop, Train, work

TICK_SECONDS = 0.25
BUSY_SECONDS = 1.0
"""Between two looks at a run that another process has claimed."""
DEATHS = 3
"""How often a run may take its worker with it before it counts as failed."""
MEMORY_SHARE = 0.8
"""Of the device's memory, what runs side by side may need by their estimates."""


class LocalLauncher:
    """`jobs`: how many runs at once, None for as many as cores, memory and GPUs bear."""

    def __init__(self, jobs: int | None = None) -> None:
        self._asked = jobs
        self._workers: list[_Worker] = []
        self._checked: Checked | None = None

    def __enter__(self) -> LocalLauncher:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            worker.process.join()

    def check(self, jobs: Sequence[CellJob], settings: RunSettings) -> Checked:
        """By the first worker, which has to load what that takes anyway.

        Raises RunError where the worker dies of it."""
        worker = self._started(0, 1, settings)
        worker.send(Check(tuple(jobs), settings))
        answer = worker.receive()
        if not isinstance(answer, Checked):
            raise RunError("the process that checks the runs died", why=worker.death())
        self._checked = answer
        return answer
