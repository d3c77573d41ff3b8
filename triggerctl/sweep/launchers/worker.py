"""A worker process of this machine: it takes orders over a connection, one at a time, until that closes.
Whoever sent them may die at any moment; the closed connection then stops the run at hand, with a checkpoint.

Imports no torch at its top: the environment that the process is to have must be set before."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import FrameType

from triggerctl.sweep.cell import CellJob, RunSettings, Tools, train_cell
from triggerctl.sweep.check import check_cells

STOP_SIGNALS = ("SIGTERM", "SIGHUP")
"""What asks a worker to stop. A terminal's Ctrl-C reaches it too, but there its master decides."""


@dataclass(frozen=True, slots=True)
class Check:
    """Order: see whether these cells can be trained; the answer is a `Checked`."""

    jobs: tuple[CellJob, ...]
    settings: RunSettings


@dataclass(frozen=True, slots=True)
class Train:
    """Order: deal with this cell; the answer is a `CellOutcome`."""

    job: CellJob
    settings: RunSettings


@dataclass(frozen=True, slots=True)
class Stop:
    """Order: stop what is under way, with a checkpoint. It overtakes the others and has no answer."""


Order = Check | Train | Stop


def work(orders: Connection, environment: Mapping[str, str]) -> None:
    """The worker's life. `environment`: variables to set before anything heavy is loaded."""
    os.environ.update(environment)
    stop = threading.Event()
    _hear_signals(stop)
    # What a crash in native code has to say goes where standard error goes: to the run's log.
    faulthandler.enable()
    inbox: queue.Queue[Check | Train | None] = queue.Queue()
    threading.Thread(target=_listen, args=(orders, inbox, stop), daemon=True).start()
    with Tools() as tools:
        while (order := inbox.get()) is not None:
            tools.drawer(order.settings)
            answer = (
                check_cells(order.jobs, order.settings)
                if isinstance(order, Check)
                else train_cell(order.job, order.settings, stop=stop, tools=tools)
            )
            # Where nobody is left to hear, what was done is on disk.
            with contextlib.suppress(OSError):
                orders.send(answer)


def _hear_signals(stop: threading.Event) -> None:
    def asked(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in STOP_SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), asked)


def _listen(orders: Connection, inbox: queue.Queue[Check | Train | None], stop: threading.Event) -> None:
    while True:
        try:
            order: Order = orders.recv()
        except (EOFError, OSError):
            stop.set()
            inbox.put(None)
            return
        if isinstance(order, Stop):
            stop.set()
        else:
            inbox.put(order)
