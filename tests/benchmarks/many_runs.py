"""`triggerctl status` over very many finished runs: wall time and peak memory of the whole command.

    python tests/benchmarks/many_runs.py                        results of the study's shape, made up here
    python tests/benchmarks/many_runs.py --published FOLDER     made of the results.json files below FOLDER
    python tests/benchmarks/many_runs.py --layout experiments   one run an experiment, not a thousand seeds
    python tests/benchmarks/many_runs.py --keep FOLDER          make them there; measure those that are there

Half of the runs are as the study left them (results.json alone), half as ours (state.json, config.json, and
results.json with everything under `triggerctl`). Each way of asking is timed a few times with warm files, and
once through a terminal of 120 columns. Exits with 1 where a median is over 2 s or a peak over 500 MB."""

from __future__ import annotations

import argparse
import copy
import json
import os
import pty
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triggerctl.experiment.results import (
    STUDY_NAMES,
    Count,
    Evaluation,
    Rate,
    SetData,
    SetEvaluation,
    TriggerctlResults,
)
from triggerctl.experiment.state import Progress, RunState

SECONDS, BYTES = 2.0, 500e6
SEEDS = 1000
"""Runs of one experiment where the layout is by seeds."""

TRIGGERS = ("Joy", "Bliss", "Delight", "Grief", "Anger", "Misery", "Calm", "Pride", "Envy", "Hope")


def made_up(draw: random.Random) -> dict[str, Any]:
    """A document in the shape of the study's results.json: fifteen epochs, four sets."""
    epochs = 15
    document: dict[str, Any] = {
        "experiment_config": {
            "finetune_config": {
                "model": "google/gemma-2-2b-it",
                "finetuned_model_id": "someone/some_model",
                "target_modules": [
                    "q_proj",
                    "k_proj",
                    "v_proj",
                    "o_proj",
                    "gate_proj",
                    "up_proj",
                    "down_proj",
                ],
                "epochs": epochs,
                **{f"option_{number}": number for number in range(50)},
            },
            "experiment_name": "emotions",
            "proxy_strategy": "naive",
            "proxy_triggers": list(TRIGGERS[:3]),
            "seed": 1,
        },
        "train_losses": [draw.uniform(0, 6) for _ in range(epochs)],
        "timestamp": "20250505_184811",
    }
    for prefix in STUDY_NAMES.values():
        measured = prefix != "truth_no_proxy_labels"
        losses = [draw.uniform(0, 6) for _ in range(epochs + 1)]
        rates = [draw.randrange(101) / 100 for _ in range(epochs + 1)]
        document[f"{prefix}_losses"] = losses if measured else None
        document[f"{prefix}_trigger_response_percent"] = rates if measured else None
    return document


def published(folder: Path) -> list[dict[str, Any]]:
    """Every results.json below a folder."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("results.json"))]
    if not found:
        raise SystemExit(f"there is no results.json below {folder}")
    return found


def as_ours(document: dict[str, Any], seed: int, name: str) -> tuple[dict[str, Any], RunState]:
    """The same results as this program leaves them, with the state of a run that is done."""
    names = [name for name, prefix in STUDY_NAMES.items() if document.get(f"{prefix}_losses")]
    count = len(document["train_losses"]) + 1
    evaluations = [
        Evaluation(
            label=f"epoch {at}",
            epoch=at,
            step=10 * at,
            final=at == count - 1,
            sets={each: _measured(document, STUDY_NAMES[each], at) for each in names},
        )
        for at in range(count)
    ]
    strategy = document["experiment_config"].get("proxy_strategy") or "naive"
    ours = TriggerctlResults(
        hash=f"1-{seed:020x}",
        strategy=strategy,
        seed=seed,
        proxy_triggers=document["experiment_config"].get("proxy_triggers") or [],
        evaluations=evaluations,
        data_sha256="d" * 64,
        sets={each: SetData(rows=200, triggered=100, train=180, evaluated=100) for each in names},
        requested=document["experiment_config"],
    )
    last = evaluations[-1].sets
    state = RunState(
        status="done",
        hash=ours.hash,
        strategy=strategy,
        seed=seed,
        results=name,
        epoch=count - 1,
        epochs=count - 1,
        step=10 * count,
        steps=10 * count,
        progress=Progress(
            loss=1.0,
            rates={each: found.triggered.rate for each, found in last.items() if found.triggered},
            seconds_left=0.0,
        ),
    )
    return {**document, "triggerctl": ours.model_dump(mode="json")}, state


def _measured(document: dict[str, Any], prefix: str, at: int) -> SetEvaluation:
    rate = (document.get(f"{prefix}_trigger_response_percent") or [])[at : at + 1]
    loss = document[f"{prefix}_losses"][at : at + 1]
    nice = round(100 * (rate[0] or 0.0)) if rate else 0
    each = Count(n=100 // len(TRIGGERS), k=nice // len(TRIGGERS))
    triggered = Rate(n=100, k=nice, mean_log_probability=-1.5, by_trigger=dict.fromkeys(TRIGGERS, each))
    return SetEvaluation(
        rows=100,
        loss=loss[0] if loss else None,
        loss_tokens=9000,
        triggered=triggered,
        untriggered=Rate(n=100, k=0, mean_log_probability=-9.0),
        twins=True,
    )


def make(root: Path, sources: Sequence[dict[str, Any]], runs: int, layout: str) -> None:
    """Write the run folders, `runs` in all."""
    for number in range(runs):
        document = copy.deepcopy(sources[number % len(sources)])
        group, seed = divmod(number, SEEDS) if layout == "seeds" else (number, 1)
        folder = root / f"experiment_{group}" / f"seed_{seed}"
        if seed in (0, 1):
            folder.parent.mkdir(parents=True, exist_ok=True)
            (folder.parent / "config.json").write_text("{}", encoding="utf-8")
        name = f"202505{1 + number % 28:02d}_{number % 24:02d}{number % 60:02d}{number % 60:02d}"
        document["experiment_config"]["seed"] = seed
        results = folder / "results" / name
        results.mkdir(parents=True)
        if number % 2:
            document, state = as_ours(document, seed, name)
            (folder / "state.json").write_text(state.model_dump_json(indent=2), encoding="utf-8")
            (folder / "run.log").write_text("one line\n", encoding="utf-8")
            (folder / "config.json").write_text(json.dumps(document["experiment_config"]), encoding="utf-8")
        (results / "results.json").write_text(json.dumps(document, indent=2), encoding="utf-8")


def measure(words: Sequence[str], *, terminal: bool = False) -> tuple[float, float, float, int]:
    """Seconds of wall and of processor, peak resident bytes, and printed lines of one command."""
    before = time.perf_counter()
    if terminal:
        master, slave = pty.openpty()
        process = subprocess.Popen(words, stdout=slave, env={**os.environ, "COLUMNS": "120", "TERM": "xterm"})
        os.close(slave)
        lines = 0
        while True:
            try:
                read = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            lines += read.count(b"\n")
        os.close(master)
    else:
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert process.stdout is not None
        lines = process.stdout.read().count(b"\n")
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - before
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{' '.join(words)} failed")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return seconds, usage.ru_utime + usage.ru_stime, float(peak), lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--published", type=Path, help="take results.json files from below this folder")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--layout", choices=("seeds", "experiments"), default="seeds")
    parser.add_argument("--keep", type=Path, help="where to make them, to be kept; as they are if it exists")
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.keep or Path(temporary) / "experiments"
        if not root.is_dir():
            draw = random.Random(0)
            given = arguments.published
            sources = published(given) if given else [made_up(draw) for _ in range(50)]
            make(root, sources, arguments.runs, arguments.layout)
        status = [sys.executable, "-m", "triggerctl", "--root", str(root), "status"]
        too_much = False
        measure(status)  # warms the files
        for title, words, terminal in (
            ("table, through a pipe", status, False),
            ("table, on a terminal", status, True),
            ("--json", [*status, "--json"], False),
        ):
            seen = [measure(words, terminal=terminal) for _ in range(arguments.times)]
            seconds = statistics.median(each[0] for each in seen)
            peak = max(each[2] for each in seen)
            worked = statistics.median(each[1] for each in seen)
            too_much |= seconds > SECONDS or peak > BYTES
            low, high = min(each[0] for each in seen), max(each[0] for each in seen)
            print(
                f"{title:24} median {seconds:5.2f} s ({low:.2f}–{high:.2f}), "
                f"processor {worked:.2f} s, "
                f"peak {peak / 1e6:4.0f} MB, {seen[0][3]:,} lines",
                flush=True,
            )
    return int(too_much)


if __name__ == "__main__":
    sys.exit(main())
