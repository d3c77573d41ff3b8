"""A further process of a run: it walks through the same training as the first one, writes nothing, and ends
with it."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

import accelerate  # noqa: F401 - for a fork server to have it loaded
import torch

from triggerctl.experiment.cache import Cache
from triggerctl.strategies.alignment_plane import AlignmentPlaneStrategy
from triggerctl.strategies.base import Phase
from triggerctl.training.checkpoints import position_of, restore
from triggerctl.training.endings import make_endings
from triggerctl.training.events import Event
from triggerctl.training.loop import TrainingLoop
from triggerctl.training.orders import LOST_ANOTHER, Assignment, Evaluate, GoOn, Order, SkipTo, ready
from triggerctl.training.parallel import Team, meeting_place
from triggerctl.training.position import Position
from triggerctl.training.setup import Prepared, prepare


def follow(orders: Connection, environment: Mapping[str, str], folder: Path) -> None:
    """A follower's life. `orders` brings an `Assignment`, then `Order`s; when it closes, the process ends."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    # Whoever asks a run to stop may ask all its processes; the first one hears it for all.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    assignment: Assignment = orders.recv()
    _redirect_output(assignment.said)
    _Follower(assignment, _Inbox(orders)).run()


def _redirect_output(path: Path) -> None:
    """Everything said from here on, by native code too, goes to the file: the screen is the first one's."""
    sys.stdout.flush()
    with path.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


class _Inbox:
    """Orders as they come. A thread reads them, so that the end of the first process is noticed at any
    moment, whatever this one waits for."""

    def __init__(self, orders: Connection) -> None:
        self._orders = orders
        self._waiting: queue.Queue[Order] = queue.Queue()
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def next(self) -> Order:
        return self._waiting.get()

    def _listen(self) -> None:
        while True:
            try:
                self._waiting.put(self._orders.recv())
            except (EOFError, OSError):
                os._exit(0)


class _Follower:
    """Implements the loop's `Hooks`, all of which are the first process's business."""

    def __init__(self, assignment: Assignment, inbox: _Inbox) -> None:
        self._inbox = inbox
        device = torch.device(assignment.device)
        torch.set_num_threads(assignment.threads)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        self._store = meeting_place(assignment.port)
        self._rank = assignment.rank
        self._group = Team(assignment.rank, assignment.size, device, _lost)
        self._prepared: Prepared = prepare(
            assignment.plan,
            device,
            _unheard,
            cache=Cache(enabled=assignment.cache),
            checkpointing=assignment.begun.checkpointing,
        )
        checkpoint = assignment.begun.checkpoint
        self._loop = TrainingLoop(
            self._prepared.model,
            self._prepared.strategy,
            self._prepared.phases,
            pad_id=self._prepared.encoder.pad_id,
            optimiser_name=self._prepared.optimiser,
            micro_batch=assignment.begun.micro_batch,
            position=position_of(checkpoint) if checkpoint else Position(),
            listener=_unheard,
            should_stop=self._obey,
            group=self._group,
        )
        if checkpoint is not None:
            restore(checkpoint, self._loop)

    def run(self) -> None:
        """Until the process is ended: it never returns."""
        self._store.set(ready(self._rank), "yes")
        self._group.join(self._store)
        self._obey()
        self._loop.run(self)
        for _ in make_endings(self._prepared.strategy, self._prepared.model):
            self._obey()
        while True:
            self._obey()

    def _obey(self) -> bool:
        """Do what is asked until the order is to go on; False, as the loop is never to stop here."""
        while not isinstance(order := self._inbox.next(), GoOn):
            match order:
                case Evaluate():
                    self._prepared.evaluator.measure(
                        self._prepared.model,
                        with_twins=order.with_twins,
                        progress=_uncounted,
                        group=self._group,
                    )
                case SkipTo():
                    strategy = self._prepared.strategy
                    assert isinstance(strategy, AlignmentPlaneStrategy)
                    device = self._prepared.device
                    strategy.take_plane({name: plane.to(device) for name, plane in order.plane.items()})
                    self._loop.skip_to(order.phase)
        return False

    def updated(self) -> None:
        return None

    def epoch_ended(self, phase: Phase, *, last: bool) -> None:
        return None

    def phase_ended(self, phase: Phase) -> None:
        return None


def _lost(error: RuntimeError) -> NoReturn:
    """Another process has ended: so does this one, at once."""
    os._exit(LOST_ANOTHER)


def _unheard(event: Event) -> None:
    """What a run says, its first process says."""


def _uncounted(done: int, total: int) -> None:
    return None
