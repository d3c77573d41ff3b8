"""How far a run has come, in plain numbers that a checkpoint holds, and how fast it goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field


@dataclass(slots=True)
class Position:
    """How far a run has come. `losses` holds the mean loss of each finished epoch by phase, and by phase and
    term ("main/cross-entropy on proxy"); `sums` and `tokens` run on; `evaluated` says that the evaluation due
    at this point has been made."""

    phase: int = 0
    epoch: int = 0
    update: int = 0
    step: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=lambda: {"trained": 0, "padded": 0})
    evaluated: bool = False

    @property
    def is_at_the_start(self) -> bool:
        """Whether no update has been made yet."""
        return self.phase == 0 and self.step == 0

    def document(self) -> dict[str, object]:
        return asdict(self)

    def next_phase(self) -> None:
        """To the start of the phase after this one."""
        self.phase += 1
        self.epoch = self.update = self.step = 0

    def advance(self) -> None:
        """One more update is made, and not evaluated yet."""
        self.update += 1
        self.step += 1
        self.evaluated = False

    def add(self, name: str, value: float) -> None:
        """One more update's value of a loss or term, towards its epoch's mean."""
        total, count = self.sums.get(name, (0.0, 0.0))
        self.sums[name] = [total + value, count + 1]

    def close_epoch(self, length: int) -> None:
        """The sums so far become a mean each. Where all `length` updates are made the next epoch begins."""
        for name, (total, count) in self.sums.items():
            self.losses.setdefault(name, []).append(total / count)
        self.sums = {}
        if self.update >= length:
            self.epoch, self.update = self.epoch + 1, 0


class Pace:
    """How fast a phase goes, since this process has been at it."""

    def __init__(self, position: Position) -> None:
        self._position = position
        self._began = time.perf_counter()
        self._first_step = position.step
        self._first_token = position.tokens["trained"]
        self._training = 0.0

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """The block's time is spent on an update, and not on what comes between two of them."""
        began = time.perf_counter()
        yield
        self._training += time.perf_counter() - began

    @property
    def tokens_per_second(self) -> float:
        """While training; after at least one update."""
        return (self._position.tokens["trained"] - self._first_token) / self._training

    def seconds_left(self, updates: int) -> float:
        """For so many more updates and what comes between them; after at least one."""
        done = self._position.step - self._first_step
        return (time.perf_counter() - self._began) / done * updates
