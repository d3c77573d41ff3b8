"""How the process of a run hears that it is to stop, where a cluster tells it so by a signal."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType


@dataclass(slots=True)
class Heard:
    """`stop` is set once one of the signals has come; `numbers` are those that have."""

    stop: threading.Event = field(default_factory=threading.Event)
    numbers: set[int] = field(default_factory=set)


@contextlib.contextmanager
def hear(names: Sequence[str]) -> Iterator[Heard]:
    """Hear these signals, by name and as far as the system has them, for the length of the block; the
    handlers that were there before are put back. Outside the main thread, where no signal is heard, nothing
    is changed."""
    heard = Heard()

    def came(number: int, frame: FrameType | None) -> None:
        heard.numbers.add(number)
        heard.stop.set()

    here = threading.current_thread() is threading.main_thread()
    numbers = [getattr(signal, name) for name in names if here and hasattr(signal, name)]
    before = {number: signal.signal(number, came) for number in numbers}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
