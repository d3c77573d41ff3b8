"""Asking a run to stop: Ctrl-C, SIGTERM and SIGHUP let it write a checkpoint first; a second Ctrl-C does not
wait."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""By name, since Windows has no SIGHUP."""

_SAID = "\nstopping: a checkpoint is written first (Ctrl-C again stops at once)\n"


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that is set when the process is asked to stop. Only for the main thread; the handlers that
    were there before are put back."""
    stop = threading.Event()

    def asked(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not stop.is_set():
            stop.set()
            # A handler may stand in the middle of another write, and a terminal that hung up takes none.
            with contextlib.suppress(OSError):
                os.write(2, _SAID.encode())

    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, asked) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
