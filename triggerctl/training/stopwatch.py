"""Where a run's time goes: each second belongs to exactly one phase, so that the phases add up to the
whole."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

PHASES = (
    "start",
    "load",
    "tokenise",
    "base_passes",
    "base_evaluation",
    "training",
    "evaluation",
    "samples",
    "save",
    "figures",
    "other",
)
"""What `timings` in results.json may hold, in the order of a run. start: from the process's start until the
run is planned, libraries loaded; base_passes: what a strategy reads of θ₀ before training; samples: answers
written out in full; save: checkpoints, weights and descriptions."""

OTHER = "other"


class Stopwatch:
    """Seconds by phase. A phase may begin inside another, whose time stands still meanwhile; outside of all
    it is `other`'s. `clock` returns seconds that only grow."""

    def __init__(
        self,
        before: Mapping[str, float] | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._seconds = dict(before or {})
        self._clock = clock
        self._running = [OTHER]
        self._since = clock()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The block's time is `name`'s."""
        self._settle()
        self._running.append(name)
        try:
            yield
        finally:
            self._settle()
            self._running.pop()

    def add(self, seconds: Mapping[str, float]) -> None:
        """Take in what was spent elsewhere: by the processes that worked on the same run before."""
        for name, more in seconds.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + more

    def read(self) -> dict[str, float]:
        """Seconds by phase up to now, in the order of a run."""
        self._settle()
        known = [name for name in PHASES if name in self._seconds]
        return {name: self._seconds[name] for name in dict.fromkeys([*known, *self._seconds])}

    def _settle(self) -> None:
        now = self._clock()
        self.add({self._running[-1]: now - self._since})
        self._since = now
