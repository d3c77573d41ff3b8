"""Which process this is, and whether another one still lives. A process number alone is not enough: numbers
are used again, and containers on one machine count their own."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict


class ProcessIdentity(BaseModel):
    """One process on one host. `namespace`: the kernel's name for the group of processes that share their
    numbers (a container has its own), empty where there is none. `start`: when it started, as an opaque word
    that is equal only for the same process."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str
    namespace: str = ""
    pid: int
    start: str


def this_process() -> ProcessIdentity:
    """Computed anew at every call, for a fork is another process."""
    pid = os.getpid()
    return ProcessIdentity(
        host=socket.gethostname(), namespace=_namespace(), pid=pid, start=_start(pid) or ""
    )


def is_here(process: ProcessIdentity) -> bool:
    """Whether the process counts among those this one can look up. Hosts of one name, as of one image, are
    told apart by when they were booted; so a process from before this host's last boot is not here either."""
    return (
        process.host == socket.gethostname()
        and process.namespace == _namespace()
        and _boot(process.start) == _boot(_start(os.getpid()) or "")
    )


def is_alive(process: ProcessIdentity) -> bool:
    """Whether a process that `is_here` still runs. One that ended but was not yet reaped by its parent does
    not."""
    return process.start != "" and _start(process.pid) == process.start


def seconds_alive() -> float:
    """How long ago this process was started."""
    return max(0.0, time.time() - float(psutil.Process().create_time()))


def _boot(start: str) -> str:
    """Which boot of a host a start belongs to; empty where that isn't known."""
    return start.rpartition("-")[0]


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _start(pid: int) -> str | None:
    """None when no such process runs."""
    if sys.platform == "linux":
        return _linux_start(pid)
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def _linux_start(pid: int) -> str | None:
    """Ticks from boot to the process's start, with the boot's own name. Unlike psutil's time of day, this
    does not move when the clock is set, so a live process is never taken for another one."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # The command's name, in brackets, may hold anything; the fields after it are the state (3rd) and on.
    fields = stat.rpartition(")")[2].split()
    state, ticks = fields[0], fields[19]
    return None if state in ("Z", "X") else f"{boot[:8]}-{ticks}"
