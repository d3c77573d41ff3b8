"""What a Slurm job does: one cell. It hears that it is to stop, leaves a checkpoint, and where Slurm said so
because the time is up or another job comes first, has itself queued again; it then goes on where it
stopped."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass
from typing import Any

from triggerctl.errors import RunError
from triggerctl.experiment.claim import STALE_SECONDS
from triggerctl.sweep.cell import CellJob, CellOutcome, Outcome, RunSettings, train_cell
from triggerctl.sweep.launchers.signals import Heard, hear

AGAIN = "SIGUSR2"
"""What submitit has Slurm send when a job is to be queued again: 90 s before its time is up, and on clusters
that send the user's signal, at pre-emption."""
STOP_SIGNALS = (AGAIN, "SIGTERM", "SIGINT", "SIGHUP")
PATIENCE_SECONDS = STALE_SECONDS + 15.0
"""How long a claim is waited for: one of a node that died under an earlier try of this job is stale by
then."""
_LOOK_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class SlurmCell:
    """A callable that submitit can pickle, queue again and resume."""

    job: CellJob
    settings: RunSettings

    def __call__(self) -> CellOutcome:
        """Raises the run's own error where it failed or was stopped, so that Slurm does not show a job that
        is completed."""
        again = getattr(signal, AGAIN, None)
        queue_again: Any = signal.getsignal(again) if again is not None else None
        with hear(STOP_SIGNALS) as heard:
            found = train_when_free(self.job, self.settings, stop=heard.stop)
        if _is_unfinished(found) and again in heard.numbers and callable(queue_again):
            # The checkpoint is written; submitit's own handler, which was kept waiting, now has the job
            # queued again, and ends this process.
            queue_again(again, None)
        if found.error is not None:
            raise found.error
        if found.outcome is Outcome.INTERRUPTED:
            raise RunError(found.reason, where=str(self.job.folder.path), why=_signals(heard))
        return found

    def checkpoint(self) -> Any:
        """What submitit queues again: the same cell, which finds the run's own checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def train_when_free(
    job: CellJob, settings: RunSettings, *, stop: threading.Event, patience: float = PATIENCE_SECONDS
) -> CellOutcome:
    """Deal with a cell; while another process is at it, wait, up to `patience` seconds."""
    began = time.monotonic()
    while True:
        found = train_cell(job, settings, stop=stop)
        if found.outcome is not Outcome.BUSY or time.monotonic() - began > patience:
            return found
        if stop.wait(_LOOK_SECONDS):
            return found


def _is_unfinished(found: CellOutcome) -> bool:
    return found.outcome in (Outcome.INTERRUPTED, Outcome.BUSY)


def _signals(heard: Heard) -> str | None:
    names = [signal.Signals(number).name for number in sorted(heard.numbers)]
    return f"the job was sent {' and '.join(names)}" if names else None
