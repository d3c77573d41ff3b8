"""What a sweep saves: six runs of the quickstart as six commands, as one sweep with one run at a time, and as
one sweep with two.

    python tests/benchmarks/sweep_overhead.py [--folder FOLDER] [--set KEY=VALUE …]

Prints for each the wall time and the part of it that is neither training nor an evaluation after an epoch:
starting, loading, tokenising, the evaluation before training, figures. Every way has a cache of its own,
empty at its start."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SEEDS = ("1", "5", "42")
STRATEGIES = ("naive", "kl")


@dataclass(frozen=True)
class Way:
    """One way to make the six runs: wall time, and what of it the runs spent on their work, in seconds."""

    name: str
    wall: float
    work: float
    runs: int

    @property
    def overhead(self) -> float:
        """Runs side by side overlap, so that this says something of one run at a time only."""
        return self.wall - self.work


def work_of(experiment: Path) -> tuple[float, int]:
    """Seconds that finished runs spent on training and on evaluations after an epoch, and how many they
    are."""
    total, runs = 0.0, 0
    for path in experiment.rglob("results.json"):
        timings = json.loads(path.read_text(encoding="utf-8"))["triggerctl"]["timings"]
        total += timings["training"] + timings["evaluation"]
        runs += 1
    return total, runs


def measure(name: str, folder: Path, commands: list[list[str]], settings: list[str]) -> Way:
    place = folder / name.replace(" ", "-")
    environment = {
        **os.environ,
        "TRIGGERCTL_ROOT": str(place),
        "TRIGGERCTL_CACHE": str(place / "cache"),
    }
    triggerctl = [sys.executable, "-m", "triggerctl"]
    overrides = [word for each in settings for word in ("--set", each)]
    begin = [*triggerctl, "init", "demo", "--template", "quickstart", *overrides]
    subprocess.run(begin, env=environment, check=True, stdout=subprocess.DEVNULL)
    began = time.perf_counter()
    for words in commands:
        subprocess.run([*triggerctl, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - began
    return Way(name, wall, *work_of(place / "demo"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="sweep-overhead-"))
    sweep = ["sweep", "demo", "--seeds", *SEEDS, "--strategies", ",".join(STRATEGIES), "--threads", "1"]
    singles = [
        ["run", "demo", "--seed", seed, "--strategy", strategy, "--threads", "1"]
        for strategy in STRATEGIES
        for seed in SEEDS
    ]
    ways = [
        measure("six commands", folder, singles, asked.settings),
        measure("one sweep", folder, [[*sweep, "--jobs", "1"]], asked.settings),
        measure("two at once", folder, [[*sweep, "--jobs", "2"]], asked.settings),
    ]
    print(f"{'way':14} {'wall s':>8} {'work s':>8} {'rest s':>8} {'runs':>5}")
    for way in ways:
        rest = "" if way.name == "two at once" else f"{way.overhead:8.1f}"
        print(f"{way.name:14} {way.wall:8.1f} {way.work:8.1f} {rest:>8} {way.runs:5}")
    single, one, two = ways
    print(f"rest of one sweep: {one.overhead / single.overhead:.2f} × that of six commands")
    print(f"two at once: {one.wall / two.wall:.2f} × the throughput of one")


if __name__ == "__main__":
    main()
