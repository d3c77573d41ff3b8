"""Which CPU this is: libraries choose their kernels, and so the order of their sums, by it."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

ABOUT = Path("/proc/cpuinfo")
"""Where Linux tells it, a line for each thing that it knows."""


@functools.cache
def processor_name(about: Path = ABOUT) -> str:
    """The CPU's model."""
    return _told("model name", about) or platform.processor() or platform.machine()


def processor_maker(about: Path = ABOUT) -> str | None:
    """As the processor itself tells it, "GenuineIntel"; None where it can't be asked."""
    return _told("vendor_id", about)


def _told(what: str, about: Path) -> str | None:
    try:
        lines = about.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(what)), None)
