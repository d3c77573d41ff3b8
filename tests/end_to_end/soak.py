"""Many small runs by a few long-lived processes: their memory must stay flat, and nothing may be left that is
no result.

    python tests/end_to_end/soak.py --runs 200 --processes 4 --minutes 20

Each process trains one run after the other, as a sweep's worker does, until all are trained or time is up.
After each run it looks at its resident memory, its open files and its threads. Memory is flat where a line
through the later half of a process's runs rises by less than three hundredths of its level. Exit code 0 where
all is as it must be, else 1."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import psutil
from small_sweep import Place, still_running

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "sweep")]

from engine import leavings  # noqa: E402

TINY: dict[str, Any] = {"epochs": 1, "max_to_eval": 2, "per_device_train_batch_size": 32}
STRATEGIES: dict[str, list[dict[str, Any]]] = {"naive": [{}], "kl_divergence": [{}], "steering_weights": [{}]}
FLAT = 0.03
FEWEST = 8
"""Runs of one process from which a slope can be told."""


def work(
    folder: str, place: int, processes: int, runs: int, until: float, environment: dict[str, str]
) -> None:
    """A process: the runs whose number is its own, counted by `processes`. What it sees goes to a file."""
    os.environ.update(environment)
    from launched import SETTINGS

    from triggerctl.config.load import load_config
    from triggerctl.experiment.layout import ExperimentFolder
    from triggerctl.sweep.cell import CellJob, Tools, train_cell
    from triggerctl.sweep.grid import cells, prepare_cell
    from triggerctl.training.plan import plan_run

    experiment = ExperimentFolder(Path(folder))
    loaded = load_config(experiment.config)
    every = cells(experiment, loaded, range(1, runs + 1), [])[:runs]
    this = psutil.Process()
    seen = []
    with Tools() as tools:
        for cell in every[place::processes]:
            if time.time() > until:
                break
            cell.folder.path.mkdir(parents=True, exist_ok=True)
            own = prepare_cell(experiment, loaded, cell)
            job = CellJob(cell.folder, own, plan_run(cell.folder, own).hash)
            outcome = train_cell(job, SETTINGS, stop=threading.Event(), tools=tools)
            seen.append(
                {
                    "outcome": str(outcome.outcome),
                    "reason": outcome.reason,
                    "memory": this.memory_info().rss,
                    "files": this.num_fds(),
                    "threads": this.num_threads(),
                    "children": len(this.children()),
                }
            )
    (Path(environment["SOAK_SEEN"]) / f"{place}.json").write_text(json.dumps(seen), encoding="utf-8")


def judge(name: str, seen: list[dict[str, Any]], say: Callable[[str], None]) -> list[str]:
    """What is wrong with what one process saw."""
    found = [f"{name}: {each['outcome']}: {each['reason']}" for each in seen if each["outcome"] != "done"]
    later = seen[len(seen) // 2 :]
    if len(later) < FEWEST:
        return [*found, f"{name}: {len(seen)} runs are too few to tell a slope"]
    memory = [each["memory"] for each in later]
    slope = linear_regression(range(len(memory)), memory).slope
    rise = slope * len(memory) / median(memory)
    say(
        f"{name}: {len(seen)} runs, {median(memory) / 1e6:.0f} MB, {slope / 1e3:+.0f} kB a run "
        f"({rise:+.2%} over {len(memory)} runs), files {seen[0]['files']} → {seen[-1]['files']}, "
        f"threads {seen[0]['threads']} → {seen[-1]['threads']}"
    )
    if rise > FLAT:
        found.append(f"{name}: memory rises by {rise:.1%} over {len(memory)} runs")
    for what in ("files", "threads", "children"):
        before, after = max(each[what] for each in seen[: len(seen) // 2]), later[-1][what]
        if after > before:
            found.append(f"{name}: {after} {what} at the end, {before} before")
    return found


def soak(root: Path, runs: int, processes: int, minutes: float, say: Callable[[str], None]) -> list[str]:
    place = Place(root).write(STRATEGIES, **TINY)
    seen = root / "seen"
    seen.mkdir()
    environment = {**place.environment, "SOAK_SEEN": str(seen)}
    until = time.time() + 60 * minutes
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=work, args=(str(place.folder), number, processes, runs, until, environment))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = [f"process {n}: exit code {w.exitcode}" for n, w in enumerate(workers) if w.exitcode]
    for path in sorted(seen.iterdir()):
        found += judge(f"process {path.stem}", json.loads(path.read_text(encoding="utf-8")), say)
    found += leavings(place.folder) + [left for left in leavings(place.cache) if "half results" not in left]
    strangers = [path.name for path in place.temporary.iterdir() if "torchinductor" not in path.name]
    found += [f"temporary: {name}" for name in strangers]
    mine = os.getpid()
    found += [f"still runs: {p.pid}" for p in still_running(place, patience=10) if p.pid != mine]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=20.0, help="begin no run after that")
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="triggerctl-soak-"))
    began = time.monotonic()
    found = soak(root, asked.runs, asked.processes, asked.minutes, lambda text: print(text, flush=True))
    for fault in found:
        print(f"FAULT: {fault}")
    print(f"{'all is flat' if not found else f'{len(found)} faults'}: {time.monotonic() - began:.0f} s")
    shutil.rmtree(root)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
