"""How fast triggerctl is on this machine, beside what one would write with transformers, peft and `generate`,
and beside the machine's own floor. Same model, rows, updates and evaluations; every run in a process of its
own, one after another.

    python -m tests.benchmarks                                      the embedded model, the quickstart
    python -m tests.benchmarks --model PATH --dataset rows.json     your model and rows
    python -m tests.benchmarks --quick                              a minute: ours against plain, cut down
    python -m tests.benchmarks --gpu-shape                          2.6 billion random weights, or an estimate
    python -m tests.benchmarks --only ways verdicts                 some parts: see --help

A times table says nothing while the machine does other work: let it be idle."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpu_shape import gpu_shape
from parts import commands, strategies, tokenising, verdicts
from processes import run
from rich.console import Console
from scaling import scaling
from tables import show
from ways import Bench, best_training, compare

PARTS = ("ways", "training", "verdicts", "strategies", "commands", "tokenise", "scaling")
QUICK = ("max_dataset_size=700",)
WARN_BELOW = 2.0


def main() -> int:
    asked = arguments()
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 140)

    def say(text: str) -> None:
        out.print(f"  {text}", style="dim")

    with tempfile.TemporaryDirectory(prefix="triggerctl-benchmark-") as temporary:
        bench = bench_of(asked, Path(temporary))
        known: dict[str, Callable[[], Any]] = {
            "ways": lambda: compare(
                bench, repeats=asked.repeats, with_trl=not asked.quick, tune=not asked.quick, say=say
            ),
            "training": lambda: best_training(bench, asked.micro, updates=asked.updates, say=say),
            "verdicts": lambda: verdicts(bench),
            "strategies": lambda: strategies(bench, asked.strategies, say=say),
            "commands": lambda: commands(bench, runs=asked.runs),
            "tokenise": lambda: tokenising(bench),
            "gpu-shape": lambda: gpu_shape(bench, repeats=asked.repeats, say=say),
            "scaling": lambda: scaling(bench, asked.sizes, asked.epochs, repeats=asked.repeats, say=say),
        }
        found: dict[str, Any] = {"machine": machine(bench), "command": shlex.join(sys.argv)}
        out.print(spoken_machine(found["machine"]))
        for name in asked.only or (("ways",) if asked.quick else PARTS):
            out.print(f"\n{name}", style="bold")
            found[name] = known[name]()
            show(out, name, found[name])
        warn_of_slow(out, found)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2, ensure_ascii=False), encoding="utf-8")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="builtin:tiny", help="a folder, a hub id, or builtin:tiny")
    add("--dataset", help="rows in Alpaca format; else the template's")
    add("--template", default="quickstart")
    add("--set", dest="settings", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    add("--rows", type=int, help="rows of the data set, at most")
    add("--device", default="auto")
    add("--threads", type=int, help="of everybody; as many as there are cores")
    add("--repeats", type=int, default=1, help="of ways and scaling, in turn; the median counts")
    add("--quick", action="store_true", help="the embedded model, ours against plain, about a minute")
    add("--gpu-shape", dest="only", action="store_const", const=["gpu-shape"], help="that part alone")
    add("--only", nargs="+", choices=(*PARTS, "gpu-shape"), metavar="PART", help=", ".join(PARTS))
    add("--micro", nargs="+", type=int, default=[2, 4, 8, 16], help="training: the Trainer's micro-batches")
    add("--updates", type=int, default=50, help="training: how many are timed")
    add("--strategies", nargs="+", help="strategies: these beside naive; all")
    add("--runs", type=int, default=1000, help="commands: finished runs that status looks at")
    add("--sizes", nargs="+", type=int, default=[250, 500, 1000, 2000], help="scaling: rows")
    add("--epochs", nargs="+", type=int, default=[2, 4, 8, 16], help="scaling: epochs")
    add("--json", type=Path, metavar="FILE", help="every figure, for programs")
    return parser.parse_args()


def bench_of(asked: argparse.Namespace, folder: Path) -> Bench:
    settings = list(asked.settings)
    if asked.quick:
        settings = [*QUICK, *settings]
    if asked.rows is not None:
        settings.append(f"max_dataset_size={asked.rows}")
    return Bench(
        folder=folder,
        model=asked.model,
        dataset=asked.dataset,
        template=asked.template,
        settings=tuple(settings),
        device=asked.device,
        threads=asked.threads or len(os.sched_getaffinity(0)),
    )


def machine(bench: Bench) -> dict[str, Any]:
    """What the figures are of."""
    about = "import json, torch; from triggerctl.model.device import resolve_device; "
    about += "from triggerctl.model.processor import processor_name; "
    about += f"d = resolve_device({bench.device!r}); print(json.dumps(dict(cpu=processor_name(), "
    about += "torch=torch.__version__, capability=torch.backends.cpu.get_cpu_capability(), device=d.type, "
    about += "gpu=torch.cuda.get_device_name(d) if d.type == 'cuda' else None)))"
    return {
        **json.loads(run([sys.executable, "-c", about]).output.splitlines()[-1]),
        "cores": os.cpu_count(),
        "threads": bench.threads,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": bench.model,
        "dataset": bench.dataset,
        "settings": list(bench.settings),
    }


def spoken_machine(about: dict[str, Any]) -> str:
    device = about["gpu"] or f"{about['cpu']} ({about['capability']})"
    return f"{device}, {about['threads']} threads, torch {about['torch']}, {about['date']}"


def warn_of_slow(out: Console, found: dict[str, Any]) -> None:
    """A line for each ratio to the plain way that is lower than it should be: times are never an error."""
    for name, ratio in found.get("ways", {}).get("ratios", {}).items():
        if name != "memory" and ratio is not None and ratio < WARN_BELOW:
            out.print(f"warning   {name}: only {ratio:.2f} × as fast as the plain way", style="yellow")
