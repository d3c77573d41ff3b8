"""What it takes to have a sweep's runs trained somewhere. A launcher starts workers that call
`sweep.cell.train_cell`; which of them trains a run is settled by the claim on its folder, and what a run says
is in its folder. So a launcher has only to start, stop and account."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from triggerctl.errors import InputError
from triggerctl.sweep.cell import CellJob, CellOutcome, RunSettings
from triggerctl.sweep.check import Checked

TICK_SECONDS = 0.25
"""How long a launcher listens to its workers between two ticks."""


def refuse_numbered_gpu(device: str, scheduler: str) -> None:
    """Raise InputError for one GPU among several, as cuda:1: which of them a run sees, and by which number,
    is the scheduler's to say."""
    if device.startswith("cuda:"):
        raise InputError(
            f"under {scheduler} no run can be given device {device!r}",
            where="--device",
            why=f"{scheduler} gives every run GPUs of its own",
            mend="--device cuda",
        )


class Launcher(Protocol):
    """Trains cells. Used as a context manager, which ends whatever it has started."""

    def __enter__(self) -> Launcher:
        """Begin; nothing needs to be started yet."""

    def __exit__(self, *error: object) -> None:
        """End every process that was started here, and wait for it."""

    def check(self, jobs: Sequence[CellJob], settings: RunSettings, *, stop: threading.Event) -> Checked:
        """Whether the cells' models can be used as asked, and what memory each will need.

        Raises InterruptedRunError once `stop` is set."""

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
        """Have the cells trained; returns when nothing is left to wait for.

        began: called when a cell is given to a worker; again if it is given to another.
        ended: called once for each cell that was dealt with, in any order.
        note:  a line for the user.
        tick:  called a few times a second while waiting.
        stop:  once set, no further cell begins, and those under way stop with a checkpoint."""
