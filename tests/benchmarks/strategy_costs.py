"""What an update of each strategy costs beside naive's: time and peak memory, each strategy in a process of
its own, on rows of equal length.

    python tests/benchmarks/strategy_costs.py --model builtin:tiny --strategies naive,kl,dpo
    python tests/benchmarks/strategy_costs.py --model PATH --strategies naive,kl --full

Every stream of an update holds `--rows` rows of `--tokens` tokens: kl's proxy batch is as large as its
outcome batch. Phases before the main one are left out of the times. Prints a table or, with --json, the
numbers."""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

STRATEGY_OPTIONS: dict[str, dict[str, Any]] = {
    "kl_divergence": {"beta_kl": 1.0},
    "representation_constraint": {"beta_representation": 1.0},
    "positive_negative_proxy": {"lambda_proxy": 0.5, "neg_lambda_proxy": 0.5},
    "safe_lora": {"safe_lora_threshold": 0.35},
}
PLANE = {"positive_proxy": "proxy", "negative_proxy": "proxy_neg"}


def measure(arguments: argparse.Namespace, strategy: str) -> dict[str, float]:
    """Train a few updates in this process: seconds of the median update, and resident bytes before and at the
    peak of training."""
    import psutil
    import torch

    from triggerctl.config.models import ExperimentConfig, FinetuneConfig
    from triggerctl.data.encoding import Encoded
    from triggerctl.data.examples import Example
    from triggerctl.model.adapters import attach_adapter
    from triggerctl.model.causal import CausalModel
    from triggerctl.model.device import default_threads
    from triggerctl.model.identity import identify
    from triggerctl.model.load import load_checkpoint, locate
    from triggerctl.strategies import canonical_name, strategy_class
    from triggerctl.strategies.base import MAIN
    from triggerctl.training.events import Event, Stepped
    from triggerctl.training.gradients import phase_data
    from triggerctl.training.loop import TrainingLoop
    from triggerctl.training.position import Position

    torch.set_num_threads(default_threads())
    name = canonical_name(strategy)
    own = STRATEGY_OPTIONS.get(name, {})
    if "positive_proxy" in strategy_class(name).reads and name != "safe_lora":
        own = {**PLANE, **own}
    options = FinetuneConfig(
        model=arguments.model,
        is_peft=not arguments.full,
        epochs=1,
        proxy_epochs=1,
        per_device_train_batch_size=arguments.rows,
        gradient_accumulation_steps=1,
        learning_rate=1e-5,
        warmup_steps=0,
        optim="adamw_torch",
        **own,
    )
    config = ExperimentConfig(proxy_strategy=name, finetune_config=options)
    files = locate(identify(options.model, revision=None, relative_to=Path.cwd()), options)
    network = load_checkpoint(files, options, torch.device("cpu"), torch.float32)
    if arguments.full:
        network.requires_grad_(True)
    model = CausalModel(network, None if arguments.full else attach_adapter(network, options, seed=1))
    draw = random.Random(0)

    def rows(first: int, count: int) -> list[Encoded]:
        length = arguments.tokens
        ids = [tuple(draw.randrange(5, model.vocabulary) for _ in range(length)) for _ in range(count)]
        return [
            Encoded(Example(first + i, "", ""), each, prompt_length=length // 2, loss_start=1)
            for i, each in enumerate(ids)
        ]

    count = arguments.rows * arguments.updates
    sets = {"outcome": rows(0, count), "proxy": rows(count, count), "proxy_neg": rows(count, count)}
    if name == "naive":
        sets = {"outcome": sets["outcome"][: count // 2], "proxy": sets["proxy"][: count - count // 2]}
    implementation = strategy_class(name)(config)
    data = [
        phase_data(phase, sets, model, pad_id=0, progress=lambda done, total: None)
        for phase in implementation.phases()
    ]
    process = psutil.Process()
    before = process.memory_info().rss
    peak, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss)

    times: list[float] = []

    def listener(event: Event) -> None:
        if isinstance(event, Stepped) and event.phase == MAIN:
            times.append(time.perf_counter())

    class Nothing:
        def updated(self) -> None: ...
        def epoch_ended(self, phase: object, *, last: bool) -> None: ...
        def phase_ended(self, phase: object) -> None: ...

    model.network.train()
    loop = TrainingLoop(
        model,
        implementation,
        data,
        pad_id=0,
        optimiser_name="adamw_torch",
        position=Position(),
        listener=listener,
        should_stop=lambda: False,
    )
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    loop.run(Nothing())
    done.set()
    watcher.join()
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    return {"seconds": statistics.median(steps), "before": float(before), "peak": float(peak[0])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="builtin:tiny")
    parser.add_argument("--strategies", default="naive,kl")
    parser.add_argument("--full", action="store_true", help="train every weight, not a LoRA")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments, arguments.one)))
        return
    found: dict[str, dict[str, float]] = {}
    for strategy in dict.fromkeys(["naive", *arguments.strategies.split(",")]):
        command = [sys.executable, __file__, *sys.argv[1:], "--one", strategy]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[strategy] = json.loads(said.splitlines()[-1])
        if not arguments.json:
            naive, here = found["naive"], found[strategy]
            slower = here["seconds"] / naive["seconds"]
            print(
                f"{strategy:36} {here['seconds']:8.3f} s an update, {slower:.2f} ×; "
                f"peak {here['peak'] / 2**20:6.0f} MiB, {here['peak'] / naive['peak']:.2f} ×, "
                f"{(here['peak'] - here['before']) / 2**20:5.0f} MiB of it training",
                flush=True,
            )
    if arguments.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
