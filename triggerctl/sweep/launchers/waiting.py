"""Runs that other processes are at: when each is worth another try."""

from __future__ import annotations

import time

from triggerctl.errors import TriggerctlError
from triggerctl.experiment.claim import holder_of
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.sweep.cell import CellJob

LOOK_SECONDS = 1.0
"""Between two looks at the claims."""
TRY_SECONDS = 30.0
"""After this long such a run is tried whatever its claim looks like from here: hosts' clocks may differ."""


class Waiting:
    """The runs that are waited for; false when there are none."""

    def __init__(self) -> None:
        self._runs: dict[ExperimentFolder, tuple[CellJob, float]] = {}
        self._told: set[ExperimentFolder] = set()
        self._looked = 0.0

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, job: CellJob) -> bool:
        """Wait for a run; returns whether it is the first time."""
        self._runs[job.folder] = job, time.monotonic()
        is_first = job.folder not in self._told
        self._told.add(job.folder)
        return is_first

    def ready(self) -> list[CellJob]:
        """The runs that are worth another try, waited for no longer."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return []
        self._looked = now
        free = [job for job, since in self._runs.values() if now - since > TRY_SECONDS or _is_free(job)]
        for job in free:
            del self._runs[job.folder]
        return free

    def clear(self) -> None:
        self._runs.clear()


def _is_free(job: CellJob) -> bool:
    try:
        holder = holder_of(job.folder.path)
    except TriggerctlError:
        return False  # out of reach for a while, it may be; it is tried in the end whatever is seen from here
    return holder is None or holder.is_stale(time.time())
