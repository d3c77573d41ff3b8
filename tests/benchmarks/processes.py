"""Programs run alone, one after another, each in a process of its own, so that its time and its memory are
its own too."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from triggerctl import ADDED

REPOSITORY = Path(__file__).parents[2]
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that ended well: seconds of wall time, the most memory that it or a child of it held, and
    what it wrote to standard output."""

    seconds: float
    peak_bytes: int
    output: str


def script(name: str, *words: str) -> list[str]:
    """The command that runs a script beside this one."""
    return [sys.executable, str(HERE / f"{name}.py"), *words]


def triggerctl(*words: str) -> list[str]:
    """The program's own command, of this checkout."""
    return [sys.executable, "-m", "triggerctl", *words]


def run(
    words: Sequence[str],
    *,
    threads: int | None = None,
    environment: Mapping[str, str] | None = None,
    may_fail: bool = False,
) -> Ended:
    """Run a program to its end, with `threads` of OpenMP if given.

    Raises SystemExit with the end of what it said where it fails, unless it `may_fail`."""
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    around = {name: value for name, value in os.environ.items() if name not in ADDED}
    around |= {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}
    around |= {"HF_HUB_DISABLE_TELEMETRY": "1", **(environment or {})}
    around.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program isn't compiled anew at each start
    if threads is not None:
        around["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as wrong:
        began = time.perf_counter()
        process = subprocess.Popen(words, env=around, stdin=subprocess.DEVNULL, stdout=said, stderr=wrong)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        wrong.seek(0)
        output = said.read().decode(errors="replace")
        if process.returncode and not may_fail:
            last = (output + wrong.read().decode(errors="replace"))[-4000:]
            raise SystemExit(f"{' '.join(words)} failed:\n{last}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Ended(seconds, usage.ru_maxrss * unit, output)
