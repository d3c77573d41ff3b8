"""A sweep of twelve runs, two at once, killed without warning again and again, and started again each time:
in the end it must have left what an undisturbed one leaves.

    python tests/end_to_end/chaos.py --kills 20 --seed 0
    python tests/end_to_end/chaos.py --folder /tmp/chaos --keep

The moments come from a list drawn before anything starts: so many seconds after the sweep's start, or after
one of its first lines. What is killed is the sweep's whole process group, one of its workers or the parent
alone. Exit code 0 where nothing was lost, else 1."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from small_sweep import SEEDS, STRATEGIES, Place, end, faults

VICTIMS = ("group", "worker", "parent")
LONGEST_WAIT = 600.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Kill:
    """`victim` dies `seconds` after the sweep has said `lines` lines, 0 being its start. `which` picks among
    workers."""

    victim: str
    lines: int
    seconds: float
    which: int

    def __str__(self) -> str:
        after = f"line {self.lines}" if self.lines else "its start"
        return f"{self.victim}, {self.seconds:.1f} s after {after}"


def draw_kills(count: int, seed: int) -> list[Kill]:
    """A third of them by the clock alone, the others soon after one of the first lines."""
    draw = random.Random(seed)
    kills = []
    for _ in range(count):
        victim = draw.choice(VICTIMS)
        if draw.random() < 1 / 3:
            kills.append(Kill(victim, 0, draw.uniform(0.0, 25.0), draw.randrange(2)))
        else:
            kills.append(Kill(victim, draw.randint(1, 12), draw.uniform(0.0, 3.0), draw.randrange(2)))
    return kills


class Chaos:
    """Sweeps one experiment under a list of kills. `log`: where the sweeps' output goes."""

    def __init__(self, place: Place, kills: list[Kill], say: Say) -> None:
        self._place = place
        self._kills = kills
        self._say = say
        self._log = place.root / "sweeps.log"
        self.starts = 0
        self.idle = 0

    def run(self) -> int:
        """Carry out every kill, let the sweep end and start it once more in peace; returns that one's exit
        code. A kill that comes when the sweep has ended is tried once more on the next one; where that has
        nothing left to do it is counted as idle."""
        sweep: subprocess.Popen[bytes] | None = None
        begun = 0
        for number, kill in enumerate(self._kills, start=1):
            for _ in range(2):
                if sweep is None or sweep.poll() is not None:
                    sweep, begun = self._start()
                died = self._wait(sweep, kill, begun)
                if not died:
                    break
            done = len(list(self._place.folder.glob("*/*/results/*/results.json")))
            if sweep is None or died:
                self._say(f"kill {number:2}: {kill}: the sweep had ended before; {done} runs done")
                self.idle += 1
                continue
            hit = self._strike(sweep, kill)
            self._say(f"kill {number:2}: {kill}: {hit}; {done} runs done")
            begun = self._lines()
        if sweep is not None:
            sweep.wait(LONGEST_WAIT)
        sweep, _ = self._start()
        return sweep.wait(LONGEST_WAIT)

    def _start(self) -> tuple[subprocess.Popen[bytes], int]:
        self.starts += 1
        before = self._lines()
        return self._place.start([*self._place.sweep_line, "--jobs", "2"], self._log), before

    def _lines(self) -> int:
        return self._log.read_bytes().count(b"\n") if self._log.exists() else 0

    def _wait(self, sweep: subprocess.Popen[bytes], kill: Kill, begun: int) -> bool:
        """Until the kill's moment; True where the sweep has ended by itself before."""
        while self._lines() < begun + kill.lines and sweep.poll() is None:
            time.sleep(0.02)
        until = time.monotonic() + kill.seconds
        while time.monotonic() < until and sweep.poll() is None:
            time.sleep(0.02)
        return sweep.poll() is not None

    def _strike(self, sweep: subprocess.Popen[bytes], kill: Kill) -> str:
        if kill.victim == "group":
            os.killpg(sweep.pid, signal.SIGKILL)
            sweep.wait()
            return "all killed"
        workers = _workers(sweep.pid) if kill.victim == "worker" else []
        if not workers:
            sweep.kill()
            sweep.wait()
            return "parent killed" if kill.victim == "parent" else "no worker yet: parent killed"
        with contextlib.suppress(psutil.NoSuchProcess):
            workers[kill.which % len(workers)].kill()
        return f"one of {len(workers)} workers killed"


def _workers(parent: int) -> list[psutil.Process]:
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(parent).children():
            with contextlib.suppress(psutil.Error):
                if "multiprocessing.spawn" in " ".join(child.cmdline()):
                    found.append(child)
    return found


def chaos(
    root: Path,
    kills: list[Kill],
    say: Say,
    *,
    strategies: Mapping[str, Any] = STRATEGIES,
    seeds: tuple[int, ...] = SEEDS,
    finetune: Mapping[str, Any] | None = None,
) -> list[str]:
    """Sweep in peace and under the kills; returns what of the second is not as it must be."""
    count = len(strategies) * len(seeds)
    peaceful = Place(root / "peaceful", seeds).write(strategies, **(finetune or {}))
    disturbed = Place(root / "disturbed", seeds).write(strategies, **(finetune or {}))
    began = time.monotonic()
    try:
        code = peaceful.sweep(root / "peaceful" / "sweeps.log")
        say(f"undisturbed: {count} runs in {time.monotonic() - began:.0f} s, exit code {code}")
        found = [f"undisturbed: {fault}" for fault in faults(peaceful, count=count)]
        found += [f"undisturbed: exit code {code}"] if code else []
        driver = Chaos(disturbed, kills, say)
        code = driver.run()
        struck = len(kills) - driver.idle
        say(f"{driver.starts} starts, {struck} kills that struck, the last start's exit code {code}")
        found += [f"exit code {code}"] if code else []
        found += faults(disturbed, count=count, like=peaceful)
        return found
    finally:
        end([*peaceful.processes(), *disturbed.processes()])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="how many (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the list of moments (default 0)")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--keep", action="store_true", help="leave the folder there")
    asked = parser.parse_args()
    root = (asked.folder or Path(tempfile.mkdtemp(prefix="triggerctl-chaos-"))).absolute()
    kills = draw_kills(asked.kills, asked.seed)
    print(json.dumps({"folder": str(root), "kills": [str(kill) for kill in kills]}, indent=2), flush=True)
    began = time.monotonic()
    found = chaos(root, kills, lambda text: print(text, flush=True))
    for fault in found:
        print(f"FAULT: {fault}")
    verdict = "nothing lost" if not found else f"{len(found)} faults"
    cells = len(STRATEGIES) * len(SEEDS)
    print(f"{verdict}: {cells} cells, {len(kills)} kills, {time.monotonic() - began:.0f} s")
    if not asked.keep and not found:
        shutil.rmtree(root)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
