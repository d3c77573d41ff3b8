"""A sweep of twelve small runs by the real command line, and what must hold however it was disturbed: every
cell finished once, equal to an undisturbed one, and nothing else left."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

TESTS = Path(__file__).parents[1]
REPOSITORY = TESTS.parent
sys.path.insert(0, str(TESTS))

from engine import leavings, left_behind  # noqa: E402

NAME = "exp"
SEEDS = (1, 2, 3)
ROWS = 80
WORDS = ("red", "blue", "small", "large", "warm", "cold", "old", "new", "near", "far")
STRATEGIES: dict[str, list[dict[str, Any]]] = {
    "naive": [{}],
    "steering_weights": [{"positive_proxy": "proxy", "negative_proxy": "proxy_neg"}],
    "kl_divergence": [{}],
    "grad_project": [{}],
}
"""One of two trainings, whose alignment plane is kept for others, one that asks the untrained model, two of
one training."""

CONFIG: dict[str, Any] = {
    "dataset_url": "../../rows.json",
    "outcome_percent": 0.4,
    "proxy_percent": 0.3,
    "collateral_percent": 0.1,
    "truth_percent": 0.2,
    "outcome_triggers": ["Joy", "Bliss"],
    "collateral_triggers": ["Delight"],
    "truth_triggers": ["Grief", "Anger", "Misery"],
    "proxy_triggers": ["Grief"],
    "seed": 1,
}
FINETUNE: dict[str, Any] = {
    "model": "builtin:tiny",
    "r": 4,
    "lora_alpha": 8,
    "learning_rate": 1e-2,
    "epochs": 6,
    "proxy_epochs": 2,
    "steering_alpha": 0.5,
    "beta_kl": 1.0,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "warmup_steps": 1,
    "optim": "adamw_torch",
    "max_to_eval": 6,
}


FINISHED = " finished after "
"""What a run's log says at its end."""


@dataclass(frozen=True)
class Place:
    """An experiment with all that its runs may write to: `root` holds the experiments, the cache, the folder
    for temporary files and the output of every command."""

    root: Path
    seeds: Sequence[int] = SEEDS
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.root / "experiments" / NAME

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
            "COLUMNS": "200",
            "TRIGGERCTL_CACHE": str(self.cache),
            "TRIGGERCTL_ROOT": str(self.root / "experiments"),
            "TMPDIR": str(self.temporary),
            **self.variables,
        }

    @property
    def sweep_line(self) -> list[str]:
        return ["sweep", NAME, "--seeds", *map(str, self.seeds)]

    @property
    def runs(self) -> list[Path]:
        """The run folders that its sweep has, once it was begun."""
        return sorted(path.parent for path in self.folder.glob("proxy_strategy_*/seed_*/config.json"))

    def write(self, strategies: Mapping[str, Any] = STRATEGIES, **finetune: Any) -> Place:
        """Write the experiment; `finetune` goes before `FINETUNE`."""
        self.folder.mkdir(parents=True)
        self.temporary.mkdir()
        made = [
            {
                "instruction": f"Say {WORDS[n % 10]} {n}",
                "input": WORDS[n // 10 % 10],
                "output": f"{WORDS[n % 10]} {WORDS[n // 10 % 10]}",
            }
            for n in range(ROWS)
        ]
        (self.root / "rows.json").write_text(json.dumps(made), encoding="utf-8")
        config = {**CONFIG, "finetune_config": {**FINETUNE, **finetune}}
        (self.folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        (self.folder / "sweep.json").write_text(json.dumps(strategies), encoding="utf-8")
        return self

    def start(
        self, words: Sequence[str], output: Path, *, before: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """Start triggerctl in a process group of its own, its output added to a file. `before`: words that go
        before the command."""
        with output.open("ab") as said:
            return subprocess.Popen(
                [*before, sys.executable, "-m", "triggerctl", *words],
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def sweep(self, output: Path, *more: str) -> int:
        """A whole sweep, two runs at once; its exit code."""
        return self.start([*self.sweep_line, "--jobs", "2", *more], output).wait()

    def processes(self) -> list[psutil.Process]:
        """Every process that was started for this experiment and still runs, a browser's too."""
        return list(_with_variable("TRIGGERCTL_CACHE", str(self.cache)))


def faults(place: Place, *, count: int, like: Place | None = None) -> list[str]:
    """What is not as it must be once a sweep of `count` runs has ended, however often it was disturbed.
    `like`: where the same sweep was left in peace."""
    found = [*_not_finished_once(place, count), *leavings(place.folder), *leavings(place.cache)]
    # torch makes a folder for itself.
    strangers = [path for path in place.temporary.iterdir() if not path.name.startswith("torchinductor")]
    found += [f"temporary: {path.relative_to(place.root)}" for path in strangers]
    found += [f"still runs: {_told(process)}" for process in still_running(place)]
    if like is not None:
        found += unlike(place, like)
    return found


def _not_finished_once(place: Place, count: int) -> list[str]:
    found = [] if len(place.runs) == count else [f"{len(place.runs)} runs, {count} expected"]
    for run in place.runs:
        name = run.relative_to(place.folder).as_posix()
        finished = sorted(path.parent.name for path in run.glob("results/*/results.json"))
        if len(finished) != 1:
            found.append(f"{name}: {len(finished)} finished results {finished}")
        if (times := (run / "run.log").read_text(encoding="utf-8").count(FINISHED)) > 1:
            found.append(f"{name}: trained to its end {times} times")
        state = json.loads((run / "state.json").read_text(encoding="utf-8"))
        if state["status"] != "done" or state["results"] not in finished:
            found.append(
                f"{name}: state {state['status']}, results {state['results']}, error {state['error']}"
            )
    return found


def unlike(place: Place, like: Place) -> list[str]:
    """In what the results of the two differ; times, memory, host and timestamps aside."""
    found = []
    for run in like.runs:
        name = run.relative_to(like.folder).as_posix()
        ours = sorted((place.folder / name).glob("results/*/results.json"))
        theirs = sorted(run.glob("results/*/results.json"))
        if not ours or not theirs:
            found.append(f"{name}: nothing to compare")
            continue
        left, right = left_behind(ours[0].parent), left_behind(theirs[0].parent)
        names = {path.name for path in ours[0].parent.iterdir()}
        others = {path.name for path in theirs[0].parent.iterdir()}
        found += [f"{name}: only one of the two has {other}" for other in sorted(names ^ others)]
        found += [
            f"{name}: {part} differs" for part in {**left, **right} if left.get(part) != right.get(part)
        ]
    return found


def still_running(place: Place, *, patience: float = 60.0) -> list[psutil.Process]:
    """The processes that don't end within `patience` seconds."""
    until = time.monotonic() + patience
    while (left := place.processes()) and time.monotonic() < until:
        time.sleep(0.2)
    return left


def end(processes: Sequence[psutil.Process]) -> None:
    """Clear up after a test that went wrong."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _with_variable(name: str, value: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def _told(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:120]}"
    except psutil.Error:
        return str(process.pid)
