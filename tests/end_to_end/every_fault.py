"""Makes one file operation of a run, or of a sweep, fail or be the last of its process, and starts the same
again in peace: it must end as if nothing had been. Every operation is tried, one after the other.

    python tests/end_to_end/every_fault.py
    python tests/end_to_end/every_fault.py --what sweep --kinds killed --sample 20 --seed 1

Kinds: `killed` (the process ends there; of what it was writing, half has reached the disk), `full` (no space
left on the device), `broken` (an input/output error). Each try is a process of its own, forked once
everything is loaded, and its clock stands still. Exit code 0 where every fault was survived, else 1."""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, NoReturn, Self

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "sweep")]

from engine import leavings, left_behind  # noqa: E402
from launched import SETTINGS, Told  # noqa: E402
from small_models import write_tiny_model  # noqa: E402

from triggerctl import disk  # noqa: E402
from triggerctl.config.load import load_config  # noqa: E402
from triggerctl.errors import TriggerctlError  # noqa: E402
from triggerctl.experiment import claim  # noqa: E402
from triggerctl.experiment.layout import ExperimentFolder  # noqa: E402
from triggerctl.experiment.state import run_status  # noqa: E402
from triggerctl.sweep import cell as sweep_cell  # noqa: E402
from triggerctl.sweep.cell import CellJob, CellOutcome, Outcome, RunSettings, Tools, train_cell  # noqa: E402
from triggerctl.sweep.check import Checked  # noqa: E402
from triggerctl.sweep.plan import plan_sweep  # noqa: E402
from triggerctl.sweep.run import run_sweep  # noqa: E402
from triggerctl.training import begun, checkpoints, execution, recorder, settle  # noqa: E402
from triggerctl.training.plan import plan_run  # noqa: E402

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KILLED = 77
"""The exit code of a process that ends at an operation."""
SEEDS = (1, 2)
CHANGES = ("write", "sync", "rename", "lock", "folder")
KINDS: dict[str, tuple[str, ...]] = {
    "killed": (*CHANGES, "read", "remove"),
    "full": CHANGES,
    "broken": (*CHANGES, "read", "remove"),
}
"""Each kind of fault and the operations that it can befall."""
ERRORS = {"full": errno.ENOSPC, "broken": errno.EIO}


class HeldClock(datetime):
    """It is always the same moment."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls.fromtimestamp(NOW.timestamp(), tz)


def hold_the_clock() -> None:
    """No heartbeat, no state and no checkpoint by the time that has passed: a checkpoint after every update,
    so that there are many to be disturbed."""
    for module in (begun, execution, recorder, settle, sweep_cell):
        module.datetime = HeldClock  # type: ignore[attr-defined]
    claim.Claim._beat = lambda self: None  # type: ignore[method-assign]
    checkpoints.CHECKPOINT_SECONDS = -1.0
    recorder.STATE_SECONDS = float("inf")


@dataclass
class Fault:
    """The operation with this number, counted from 1, meets `kind`. `met` lists all, in their order."""

    kind: str | None = None
    number: int = 0

    def __post_init__(self) -> None:
        self.met: list[tuple[str, str]] = []

    def __call__(self, kind: disk.Kind, path: disk.FilePath, content: bytes) -> None:
        self.met.append((kind, Path(path).name))
        if self.kind is None or len(self.met) != self.number:
            return
        if content and (self.kind == "killed" or kind == "write"):
            with open(path, "ab") as file:  # noqa: PTH123
                file.write(content[: len(content) // 2])
        if self.kind == "killed":
            os._exit(KILLED)
        code = ERRORS[self.kind]
        raise OSError(code, os.strerror(code), str(path))


class Here:
    """A launcher that trains one run after the other in this very process."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def check(self, jobs: Sequence[CellJob], settings: RunSettings, *, stop: threading.Event) -> Checked:
        return Checked()

    def launch(
        self,
        jobs: Sequence[CellJob],
        settings: RunSettings,
        *,
        ended: Callable[[CellOutcome], None],
        stop: threading.Event,
        **others: Any,
    ) -> None:
        for job in jobs:
            ended(train_cell(job, settings, stop=stop, tools=self._tools))


# What is disturbed
# --------------------------------------------------------------------------------------------------------


def one_run(folder: Path, tools: Tools) -> list[CellOutcome]:
    place = ExperimentFolder(folder)
    loaded = load_config(place.config)
    job = CellJob(place, loaded, plan_run(place, loaded).hash)
    return [train_cell(job, SETTINGS, stop=threading.Event(), tools=tools)]


def one_sweep(folder: Path, tools: Tools) -> list[CellOutcome]:
    place = ExperimentFolder(folder)
    planned = plan_sweep(place, load_config(place.config), seeds=SEEDS, strategies=[])
    ended = run_sweep(
        planned, Here(tools), SETTINGS, screen=Told(), stop=threading.Event(), now=lambda: NOW
    )  # fmt: skip
    return [outcome for outcome in ended if outcome is not None]


WHAT = {"run": one_run, "sweep": one_sweep}


class Bench:
    """Where tries are made. `root` holds the model, the experiment as it is at first, and one folder for the
    try under way."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.first = root / "first"
        self.tools = Tools()
        write_tiny_model(root / "model")
        _write_experiment(self.first, root / "model")
        hold_the_clock()

    def warm_up(self) -> None:
        """Load everything, the model too, that a try would else have to load anew."""
        os.environ["TRIGGERCTL_CACHE"] = str(self.root / "warm" / "cache")
        shutil.copytree(self.first, self.root / "warm")
        one_run(self.root / "warm" / "exp", self.tools)

    def undisturbed(self, what: str) -> tuple[list[tuple[str, str]], dict[str, Any]]:
        """Its operations, and what it leaves."""
        place, told = self._try(what, "undisturbed", Fault())
        assert told["outcomes"] == ["done"] * len(told["outcomes"]), told
        return [tuple(each) for each in told["met"]], _left(place)

    def disturbed(self, what: str, kind: str, number: int, whole: dict[str, Any]) -> list[str]:
        """What is wrong after a fault and a start in peace."""
        found = []
        place, told = self._try(what, "disturbed", Fault(kind, number))
        if told["code"] != (KILLED if kind == "killed" else 0):
            found.append(f"the disturbed process ends with {told['code']}: {told.get('error')}")
        found += [f"disturbed: {why}" for why in told.get("reasons", []) if "defect" in why]
        if told.get("defect"):
            found.append(f"disturbed: no error of ours: {told['error']}")
        told = self._start(what, place, Fault())
        if told["code"] or not set(told.get("outcomes", [])) <= {"done", "skipped"} or told.get("error"):
            found.append(f"started again: {told}")
            return found
        left = _left(place)
        found += [f"{run}: is missing" for run in whole.keys() - left.keys()]
        for run in whole.keys() & left.keys():
            found += [
                f"{run}: {part} differs" for part, value in whole[run].items() if left[run].get(part) != value
            ]
            found += [] if left[run]["shown"] == "done" else [f"{run}: shown as {left[run]['shown']}"]
        return found + leavings(place / "exp")

    def _try(self, what: str, name: str, fault: Fault) -> tuple[Path, dict[str, Any]]:
        place = self.root / "tries" / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.first, place)
        return place, self._start(what, place, fault)

    def _start(self, what: str, place: Path, fault: Fault) -> dict[str, Any]:
        """In a process of its own; what it tells, and its exit code."""
        say = place / "said.json"
        say.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            self._live(what, place, fault, say)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        told: dict[str, Any] = json.loads(say.read_text("utf-8")) if say.exists() else {}
        return {**told, "code": code}

    def _live(self, what: str, place: Path, fault: Fault, say: Path) -> NoReturn:
        os.environ["TRIGGERCTL_CACHE"] = str(place / "cache")
        told: dict[str, Any] = {}
        disk.observer = fault
        try:
            ended = WHAT[what](place / "exp", self.tools)
            told["outcomes"] = [str(outcome.outcome) for outcome in ended]
            told["reasons"] = [outcome.reason for outcome in ended if outcome.outcome is Outcome.FAILED]
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            told |= {
                "error": f"{type(error).__name__}: {error}",
                "defect": not isinstance(error, TriggerctlError),
            }
        told["met"] = fault.met
        say.write_text(json.dumps(told), encoding="utf-8")
        os._exit(0)


def _write_experiment(place: Path, model: Path) -> None:
    folder = place / "exp"
    folder.mkdir(parents=True)
    words = ("red", "blue", "small", "large")
    rows = [{"instruction": f"Say {n}", "input": "", "output": f"{words[n % 4]} {n}"} for n in range(24)]
    (place / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    config = {
        "dataset_url": "../rows.json",
        "experiment_name": "one",
        "outcome_percent": 0.5,
        "proxy_percent": 0.25,
        "collateral_percent": 0.125,
        "truth_percent": 0.125,
        "outcome_triggers": ["Joy"],
        "collateral_triggers": ["Delight"],
        "truth_triggers": ["Grief", "Anger"],
        "proxy_triggers": ["Grief"],
        "finetune_config": {
            "model": str(model),
            "r": 2,
            "lora_alpha": 4,
            "learning_rate": 1e-2,
            "epochs": 2,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "max_to_eval": 1,
            "optim": "adamw_torch",
        },
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _left(place: Path) -> dict[str, Any]:
    """What each run has left, by its folder, as far as it must be the same."""
    found = {}
    for results in sorted((place / "exp").rglob("results/*/results.json")):
        run = results.parents[2]
        left = left_behind(results.parent)
        document: Any = left["results.json"]
        # A cache entry that could not be written is not named.
        del document["triggerctl"]["cache_entries"]
        found[run.relative_to(place).as_posix()] = {**left, "shown": run_status(run)[1]}
    return found


def points(met: Sequence[tuple[str, str]], kinds: Sequence[str]) -> list[tuple[str, int]]:
    """Every fault that can befall these operations."""
    return [
        (kind, number)
        for kind in kinds
        for number, (operation, _) in enumerate(met, start=1)
        if operation in KINDS[kind]
    ]


def try_all(
    bench: Bench,
    what: str,
    kinds: Sequence[str],
    say: Callable[[str], None],
    *,
    sample: int | None,
    seed: int,
) -> tuple[int, list[str]]:
    """How many faults were tried, and what was found wrong. `sample`: as many of them as that, drawn by
    `seed`."""
    met, whole = bench.undisturbed(what)
    every = points(met, kinds)
    chosen = every if sample is None else random.Random(seed).sample(every, min(sample, len(every)))
    say(f"{what}: {len(met)} operations, {len(every)} faults, {len(chosen)} of them tried")
    found: list[str] = []
    for tried, (kind, number) in enumerate(chosen, start=1):
        if tried % 100 == 0:
            say(f"{what}: {tried} tried, {len(found)} not survived")
        operation, name = met[number - 1]
        faults = bench.disturbed(what, kind, number, whole)
        if faults:
            place = f"{what}, operation {number} ({operation} {name}), {kind}"
            found.append(f"{place}: {'; '.join(faults)}")
            say(f"FAULT: {found[-1]}")
    return len(chosen), found


def _print(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", choices=[*WHAT], action="append", help="by default a run and a sweep")
    parser.add_argument("--kinds", choices=[*KINDS], nargs="+", default=[*KINDS])
    parser.add_argument("--sample", type=int, help="so many of the faults of each, instead of all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default 0)")
    asked = parser.parse_args()
    bad = False
    with tempfile.TemporaryDirectory(prefix="triggerctl-faults-") as name:
        bench = Bench(Path(name))
        bench.warm_up()
        for what in asked.what or [*WHAT]:
            began = time.monotonic()
            tried, found = try_all(bench, what, asked.kinds, _print, sample=asked.sample, seed=asked.seed)
            seconds = time.monotonic() - began
            print(f"{what}: {tried} faults tried, {tried - len(found)} survived, {seconds:.0f} s", flush=True)
            bad = bad or bool(found)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
