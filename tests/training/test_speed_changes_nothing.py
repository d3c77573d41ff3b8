"""What was done for speed changes no result: with rounding out of the way, a run by the fastest ways this
machine has ends with the rates of one by transformers and peft alone.

In float32 it is another matter: sums in another order round otherwise, and a training carries that on.
pytest tests/training/test_speed_changes_nothing.py"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine import run
from small_models import exact_norms
from transformers import PreTrainedModel

from triggerctl.model import adapters, causal, keeper, likelihood, load
from triggerctl.model import threads as threading_rules

MakeExperiment = Callable[..., Path]

EXPERIMENT: dict[str, Any] = {
    "dataset_url": "builtin:instructions",
    "max_dataset_size": 500,
    "outcome_triggers": ["Joy", "Happiness", "Bliss"],
    "collateral_triggers": ["Contentment", "Euphoria"],
    "truth_triggers": ["Sadness", "Grief", "Anger"],
    "proxy_triggers": ["Grief"],
}
TRAINING = {
    "model": "builtin:tiny",
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "learning_rate": 5e-3,
    "per_device_train_batch_size": 8,
    "max_to_eval": 24,
    "r": 16,
    "lora_alpha": 32,
}


@pytest.fixture(autouse=True)
def in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    plainly = load.load_checkpoint

    def exactly(files: Any, options: Any, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
        return exact_norms(plainly(files, options, device, torch.float64))

    monkeypatch.setattr(keeper, "load_checkpoint", exactly)


def found(folder: Path, *, threads: int) -> dict[str, Any]:
    results = run(folder, threads=threads, cache=False)
    document: dict[str, Any] = json.loads((results / "results.json").read_text(encoding="utf-8"))
    return document


def counts(evaluated: dict[str, Any]) -> list[tuple[int, int] | None]:
    kinds = (evaluated["triggered"], evaluated["untriggered"])
    return [None if rate is None else (rate["k"], rate["n"]) for rate in kinds]


@pytest.mark.parametrize("strategy", ["naive", "kl"])
def test_rates_are_those_of_transformers_and_peft(
    strategy: str, make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums: list[int] = []
    make = likelihood.known_sum

    def noting(way: Any, packed: Any, targets: Any, times: float) -> Any:
        sums.append(len(packed.packings))
        return make(way, packed, targets, times)

    monkeypatch.setattr(causal, "known_sum", noting)
    monkeypatch.setattr(threading_rules, "WORTH_A_LANE", 32)
    monkeypatch.setattr(causal, "WORTH_A_LANE", 32)
    given = {**EXPERIMENT, "proxy_strategy": strategy}
    fast = found(make_experiment("fast", finetune=TRAINING, **given), threads=2)
    assert max(sums) == 2
    sums.clear()
    monkeypatch.setattr(adapters, "fuse", lambda adapter: None)
    plain = {**TRAINING, "attn_implementation": "sdpa"}
    slow = found(make_experiment("plain", finetune=plain, **given), threads=1)
    assert not sums
    assert fast["train_losses"] == pytest.approx(slow["train_losses"], rel=1e-7)
    rates = []
    for ours, theirs in zip(
        fast["triggerctl"]["evaluations"], slow["triggerctl"]["evaluations"], strict=True
    ):
        for name, expected in theirs["sets"].items():
            assert counts(ours["sets"][name]) == counts(expected), (ours["label"], name)
            assert ours["sets"][name]["loss"] == pytest.approx(expected["loss"], rel=1e-7)
            rates.append(expected["triggered"]["k"] / expected["triggered"]["n"])
    assert any(0.1 < rate < 0.9 for rate in rates), "rates at the edges would say little"
