"""CPU cores: how many this process may use, how many nothing else wants, and how OpenMP's threads are to wait
for each other.

A thread that spins goes on the moment the others are there. Where other processes want the cores too, it
keeps one of them from the very thread that it waits for, and a run may take twice as long as with threads
that sleep. The machine idle, they spin for a moment: from one product to the next, and not for as long as
OpenMP's own would, milliseconds in which a core is lost to passes that go side by side."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

ASKED = frozenset({"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"})
"""Variables by which who starts a process decides how its threads wait."""

SPIN_COUNT, SHORT = "GOMP_SPINCOUNT", "4000"
"""How often GNU's OpenMP looks before a thread sleeps: for some tens of microseconds. By itself it would look
300,000 times."""

ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", SPIN_COUNT: "0"}

LOOKS = 3
SECONDS_BETWEEN = 0.002
"""What runs for a moment only, a run would not have to share its cores with."""


def available_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def idle_cores(load: Path = Path("/proc/loadavg")) -> int | None:
    """How many of the machine's cores nothing but this thread wants; None where that can't be told."""
    most = None
    for look in range(LOOKS):
        if look:
            time.sleep(SECONDS_BETWEEN)
        try:
            running = int(load.read_text(encoding="ascii").split()[3].partition("/")[0])
        except (OSError, ValueError, IndexError):
            return None
        idle = (os.cpu_count() or 1) - max(0, running - 1)
        most = idle if most is None else max(most, idle)
    return most


def waiting(around: Mapping[str, str], *, available: int, idle: int | None) -> dict[str, str]:
    """What to add to the environment `around` before PyTorch is loaded: threads spin for a moment where as
    many cores are idle as this process may use."""
    asked = {name for name in ASKED & around.keys() if (name, around[name]) != (SPIN_COUNT, SHORT)}
    if asked:
        return {}
    return {SPIN_COUNT: SHORT} if idle is not None and idle >= available else ASLEEP
