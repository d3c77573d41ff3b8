"""The benchmark's smaller parts: verdicts against generation, what each strategy's updates cost, and how long
the commands take that train nothing."""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

from processes import run, script, triggerctl
from ways import Bench, ours

ROWS = 52_000
"""As many as Alpaca has."""

TIMES = 3


def verdicts(bench: Bench) -> dict[str, float]:
    """Each verdict of a finished run of ours against `generate` on the weights it saved."""
    ours(bench, "verdicts")
    root = bench.folder / "verdicts"
    output = run(
        script("verdicts_against_generation", str(root / "bench")),
        threads=bench.threads,
        environment=bench.environment(root),
        may_fail=True,
    ).output
    counts = re.search(r"disagreements: (\d+); ties: (\d+)", output)
    times = re.search(r"(\d+) verdicts: one pass ([\d.]+) s.*generation ([\d.]+) s", output)
    if counts is None or times is None:
        raise SystemExit(f"verdicts_against_generation.py said:\n{output}")
    return {
        "verdicts": int(times[1]),
        "disagreements": int(counts[1]),
        "ties": int(counts[2]),
        "one_pass_seconds": float(times[2]),
        "generation_seconds": float(times[3]),
    }


def strategies(bench: Bench, names: Sequence[str] | None, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Seconds and peak memory of an update of each strategy, naive's first."""
    if names is None:
        listed = "from triggerctl.strategies import names; print(*names(), sep=',')"
        names = run([sys.executable, "-c", listed]).output.split()[-1].split(",")
    found: dict[str, Any] = {}
    for name in dict.fromkeys(["naive", *names]):
        words = ["--model", bench.model, "--one", name, "--rows", "8", "--tokens", "96"]
        output = run(script("strategy_costs", *words), threads=bench.threads).output
        found[name] = json.loads(output.splitlines()[-1])
        say(f"{name}: {found[name]['seconds']:.3f} s")
    return found


def commands(bench: Bench, *, runs: int) -> dict[str, Any]:
    """Start-up, `status` over many finished runs, and `report` over one experiment of them."""
    root = bench.folder / "commands"
    run(script("many_runs", "--runs", str(runs), "--times", "1", "--keep", str(root)), may_fail=True)
    at = ["--root", str(root)]
    ours(bench, "report")
    once = bench.environment(bench.folder / "report")
    timed = {
        "--help": (triggerctl("--help"), None),
        "run --help": (triggerctl("run", "--help"), None),
        f"status of {runs:,} runs": (triggerctl(*at, "status"), None),
        "report of one run": (triggerctl("report", "bench"), once),
    }
    found = {}
    for name, (words, environment) in timed.items():
        seen = [run(words, environment=environment) for _ in range(TIMES)]
        found[name] = {
            "seconds": statistics.median(each.seconds for each in seen),
            "peak_bytes": max(each.peak_bytes for each in seen),
        }
    return found


def tokenising(bench: Bench) -> dict[str, float]:
    """52,000 rows made into tokens, and read back from the cache."""
    root = bench.folder / "tokens"
    output = run(
        script("tokenising", "--model", bench.model, "--rows", str(ROWS)),
        threads=bench.threads,
        environment=bench.environment(root),
    ).output
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found
