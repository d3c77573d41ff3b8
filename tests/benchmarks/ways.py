"""One experiment done in several ways, interleaved and repeated, each time in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from processes import run, script, triggerctl

OURS, PLAIN, TRL = "triggerctl", "Trainer + generate", "SFTTrainer + generate"
QUICK_SIZES = {"losses": 64, "generate": 128}
"""The plain way's best batch sizes on the embedded model: what --tune finds there."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Done:
    """A whole run in one way. Seconds; `evaluation` is of losses and rates of every set, before training too;
    `passed`: tokens evaluated, and `evaluations` how often, where that is known; `rates`: final trigger
    response rate of each set."""

    wall: float
    training: float
    evaluation: float
    trained: int
    padded: int
    parameters: int
    peak_bytes: float
    rates: dict[str, float | None]
    passed: int | None = None
    evaluations: int = 0
    timings: dict[str, float] | None = None
    evaluated_padded: int | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured and where: `folder` is emptied by nobody, `threads` are everybody's, and `settings`
    stand in for the template's."""

    folder: Path
    model: str
    dataset: str | None
    template: str
    settings: tuple[str, ...]
    device: str
    threads: int

    def begin(self, name: str, *settings: str) -> Path:
        """A fresh experiment of its own; returns its folder."""
        root = self.folder / name
        shutil.rmtree(root, ignore_errors=True)
        words = ["init", "bench", "--template", self.template, "--model", self.model]
        words += ["--dataset", self.dataset] if self.dataset else []
        for setting in (*self.settings, *settings):
            words += ["--set", setting]
        run(triggerctl(*words), environment=self.environment(root))
        return root / "bench"

    def environment(self, root: Path) -> dict[str, str]:
        """A root and a cache of its own, so that nothing is found there."""
        return {"TRIGGERCTL_ROOT": str(root), "TRIGGERCTL_CACHE": str(root / "cache")}


def ours(bench: Bench, name: str, *settings: str) -> Done:
    """`triggerctl run` on a fresh experiment with an empty cache."""
    experiment = bench.begin(name, *settings)
    command = triggerctl("run", "bench", "--threads", str(bench.threads), "--device", bench.device)
    ended = run(command, threads=bench.threads, environment=bench.environment(experiment.parent))
    [results] = experiment.glob("results/*/results.json")
    found = json.loads(results.read_text(encoding="utf-8"))["triggerctl"]
    timings, tokens, memory = found["timings"], found["tokens"], found["memory"]
    [final] = [each for each in found["evaluations"] if each["final"]]
    return Done(
        wall=ended.seconds,
        training=timings.get("training", 0.0),
        evaluation=timings.get("base_evaluation", 0.0) + timings.get("evaluation", 0.0),
        trained=tokens["trained"],
        padded=tokens["padded"],
        parameters=found["model"]["parameters"],
        peak_bytes=memory.get("peak_gpu_bytes") or memory["peak_resident_bytes"],
        rates={set_: _rate(each["triggered"]) for set_, each in final["sets"].items()},
        passed=tokens["evaluated"],
        evaluations=len(found["evaluations"]),
        timings=timings,
        evaluated_padded=tokens["evaluated_padded"],
    )


def _rate(triggered: dict[str, Any] | None) -> float | None:
    return triggered["k"] / triggered["n"] if triggered and triggered["n"] else None


def plain(bench: Bench, task: Path, *options: str) -> Done:
    """The plain way, by Trainer or with `--trl` by SFTTrainer."""
    result = task.with_name("result.json")
    ended = run(script("plain", str(task), str(result), *options), threads=bench.threads)
    found = json.loads(result.read_text(encoding="utf-8"))
    return Done(
        wall=ended.seconds,
        training=found["training_seconds"],
        evaluation=found["evaluation_seconds"],
        trained=found["trained"],
        padded=found["padded"],
        parameters=found["parameters"],
        peak_bytes=found["peak_bytes"],
        rates={name: each["rate"] for name, each in (found["final"] or {}).items()},
    )


def task_of(bench: Bench, experiment: Path, *, tune: bool) -> Path:
    """The experiment's work as plain data, the plain evaluation's batch sizes chosen."""
    file = bench.folder / "task.json"
    run(
        script("task", str(experiment), str(file), "--device", bench.device),
        environment=bench.environment(experiment.parent),
    )
    sizes = QUICK_SIZES
    if tune:
        found = file.with_name("sizes.json")
        run(script("plain", str(file), str(found), "--tune"), threads=bench.threads)
        sizes = json.loads(found.read_text(encoding="utf-8"))
    task = {**json.loads(file.read_text(encoding="utf-8")), "sizes": sizes}
    file.write_text(json.dumps(task), encoding="utf-8")
    return file


def matmul_rates(bench: Bench) -> dict[str, float]:
    """Operations a second by shape, measured now."""
    words = ["--model", bench.model, "--device", bench.device, "--threads", str(bench.threads)]
    output = run(script("floor", *words), threads=bench.threads).output
    rates: dict[str, float] = json.loads(output.splitlines()[-1])["rates"]
    return rates


def compare(bench: Bench, *, repeats: int, with_trl: bool, tune: bool, say: Say) -> dict[str, Any]:
    """All ways in turn, `repeats` times over; the matmul floor before, between and after. Plain data."""
    task = task_of(bench, bench.begin("task"), tune=tune)
    ways: dict[str, Callable[[], Done]] = {
        OURS: lambda: ours(bench, "ours"),
        PLAIN: lambda: plain(bench, task),
    }
    if with_trl and importlib.util.find_spec("trl") is None:
        say('SFTTrainer is left out: trl is not installed (pip install -e ".[benchmark]")')
    elif with_trl:
        ways[TRL] = lambda: plain(bench, task, "--trl")
    rates = matmul_rates(bench)
    done: dict[str, list[Done]] = {name: [] for name in ways}
    for turn in range(repeats):
        for name, way in ways.items():
            done[name].append(way())
            say(f"{name}, {turn + 1} of {repeats}: {done[name][-1].wall:.1f} s")
        again = matmul_rates(bench)
        rates = {shape: max(rates[shape], again[shape]) for shape in rates}
    told = json.loads(task.read_text(encoding="utf-8"))
    return figures(told, done, rates)


def figures(task: dict[str, Any], done: dict[str, list[Done]], rates: dict[str, float]) -> dict[str, Any]:
    """The medians of every way, and what they amount to."""
    rate = max(rates.values())
    operations = (4 if task["lora"] else 6) + (2 if task["training"]["checkpointing"] else 0)
    table = {}
    for name, runs in done.items():
        wall, training, evaluation, peak = (
            statistics.median(getattr(each, field) for each in runs)
            for field in ("wall", "training", "evaluation", "peak_bytes")
        )
        tokens, parameters = runs[0].trained, runs[0].parameters
        table[name] = {
            "wall_seconds": wall,
            "training_seconds": training,
            "evaluation_seconds": evaluation,
            "trained_tokens_per_second": tokens / training if training else None,
            "share_of_floor": tokens * operations * parameters / rate / training if training else None,
            "peak_bytes": peak,
            "padding": 1 - tokens / runs[0].padded if runs[0].padded else 0.0,
            "rates": runs[0].rates,
            "runs": [asdict(each) for each in runs],
        }
    mine, theirs = table[OURS], table[PLAIN]
    for row in table.values():
        row["ratio"] = theirs["wall_seconds"] / row["wall_seconds"]
    first = done[OURS][0]
    evaluations = first.evaluations
    needed = min(2, evaluations) * task["needed"]["with_twins"]
    needed += max(0, evaluations - 2) * task["needed"]["plain"]
    return {
        "floor": {"operations_per_second": rate, "by_shape": rates},
        "plain_batch_sizes": task["sizes"],
        "ways": table,
        "ratios": {
            "whole": theirs["wall_seconds"] / mine["wall_seconds"],
            "training": _ratio(theirs["training_seconds"], mine["training_seconds"]),
            "evaluation": _ratio(theirs["evaluation_seconds"], mine["evaluation_seconds"]),
            "memory": mine["peak_bytes"] / theirs["peak_bytes"],
        },
        "evaluation": {
            "times": evaluations,
            "needed_tokens": needed,
            "passed_tokens": first.passed,
            "passed_by_needed": (first.passed or 0) / needed if needed else None,
            "share_of_wall": mine["evaluation_seconds"] / mine["wall_seconds"],
            "padding": 1 - (first.passed or 0) / first.evaluated_padded if first.evaluated_padded else 0.0,
        },
        "our_timings": first.timings,
    }


def _ratio(theirs: float, mine: float) -> float | None:
    return theirs / mine if mine else None


def best_training(bench: Bench, micro_batches: Sequence[int], *, updates: int, say: Say) -> dict[str, Any]:
    """Training alone: the Trainer at each micro-batch, rows in random order and grouped by length, for a
    number of updates of the same size; then ours on as many. Tokens a second, and peak memory."""
    task = task_of(bench, bench.begin("task", f"max_steps={updates}"), tune=False)
    whole = json.loads(task.read_text(encoding="utf-8"))["training"]["rows_per_update"]
    tried = []
    for micro in sorted({min(micro, whole) for micro in micro_batches}):
        for by_length in (False, True):
            options = ["--only-training", "--micro", str(micro), "--updates", str(updates)]
            done = plain(bench, task, *options, *(["--by-length"] if by_length else []))
            tried.append({"micro_batch": micro, "by_length": by_length, **_speed(done)})
            say(f"Trainer, micro-batch {micro}{', by length' if by_length else ''}: {_spoken(done)}")
    mine = ours(bench, "training", f"max_steps={updates}", "max_to_eval=1")
    say(f"triggerctl: {_spoken(mine)}")
    best = max(tried, key=lambda each: each["tokens_per_second"])
    return {
        "updates": updates,
        "trainer": tried,
        "triggerctl": _speed(mine),
        "ratio": mine.trained / mine.training / best["tokens_per_second"],
    }


def _speed(done: Done) -> dict[str, float]:
    return {
        "tokens_per_second": done.trained / done.training,
        "padding": 1 - done.trained / done.padded,
        "peak_bytes": done.peak_bytes,
    }


def _spoken(done: Done) -> str:
    return f"{done.trained / done.training:,.0f} tokens/s, peak {done.peak_bytes / 2**20:,.0f} MiB"
