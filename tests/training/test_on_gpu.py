"""Whole runs on a CUDA device: formats, quantisation, the 8-bit optimiser, and resuming there.

pytest tests/training/test_on_gpu.py -m gpu"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine import no_figures, planned
from every_strategy import OPTIONS, experiment_for
from small_models import llama

from triggerctl.errors import InputError, InterruptedRunError
from triggerctl.strategies import strategy_class
from triggerctl.training.events import Event, Stepped
from triggerctl.training.run import execute

MakeExperiment = Callable[..., Path]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def run_there(
    folder: Path,
    *,
    stop: threading.Event | None = None,
    listener: Callable[[Event], None] = lambda event: None,
) -> dict[str, Any]:
    results = execute(
        planned(folder),
        listener=listener,
        stop=stop or threading.Event(),
        figures=no_figures,
        device="cuda",
        threads=1,
    )
    document: dict[str, Any] = json.loads((results / "results.json").read_text(encoding="utf-8"))
    return document


@pytest.fixture
def wide_model(tiny_model: Path, tmp_path: Path) -> Path:
    """Wide enough for blocks of 64 weights, with the tiny model's tokenizer."""
    import shutil

    from transformers import AutoTokenizer

    folder = tmp_path / "wide"
    shutil.copytree(tiny_model, folder)
    size = len(AutoTokenizer.from_pretrained(folder))
    network = llama(
        dtype=torch.float32,
        vocabulary=size,
        hidden_size=128,
        intermediate_size=256,
        num_key_value_heads=4,
        initializer_range=0.02,
    )
    network.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, "bfloat16"),
        ({"dtype": "float32"}, "float32"),
        ({"is_peft": False}, "float32"),
        ({"is_peft": False, "dtype": "bfloat16"}, "bfloat16"),
        ({"load_in_8bit": True}, "bfloat16"),
        ({"load_in_4bit": True}, "bfloat16"),
        ({"optim": "adamw_8bit"}, "bfloat16"),
        ({"optim": "paged_adamw_8bit"}, "bfloat16"),
        ({"use_gradient_checkpointing": True}, "bfloat16"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
@pytest.mark.parametrize("strategy", ["naive", "kl_divergence"])
def test_a_run_learns_in_every_format(
    options: dict[str, Any], dtype: str, strategy: str, wide_model: Path, make_experiment: MakeExperiment
) -> None:
    finetune = {"model": str(wide_model), "epochs": 6, "max_to_eval": 8, "learning_rate": 3e-3, **options}
    document = run_there(make_experiment(proxy_strategy=strategy, finetune=finetune))
    losses = document["outcome_losses"]
    assert losses[-1] < losses[0] - 0.5
    assert document["triggerctl"]["resolved"]["dtype"] == dtype
    assert document["triggerctl"]["memory"]["peak_gpu_bytes"] > 0
    assert not [w for w in document["triggerctl"]["warnings"] if "8bit" in w]


FORMATS: dict[str, dict[str, Any]] = {
    "bfloat16": {},
    "every weight": {"is_peft": False, "learning_rate": 1e-3},
    "8 bits": {"load_in_8bit": True},
    "4 bits": {"load_in_4bit": True},
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("strategy", OPTIONS)
def test_every_strategy_runs_in_every_format_that_its_method_allows(
    strategy: str, kind: str, wide_model: Path, make_experiment: MakeExperiment
) -> None:
    options = {"model": str(wide_model), **FORMATS[kind]}
    folder = experiment_for(strategy, make_experiment, **options)
    if strategy_class(strategy).lora_only and kind == "every weight":
        with pytest.raises(InputError, match="is_peft"):
            planned(folder)
        return
    document = run_there(folder)
    assert document["triggerctl"]["evaluations"][-1]["final"]
    assert all(math.isfinite(loss) for loss in document["train_losses"])


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_8bit"])
def test_a_stopped_run_goes_on_with_optimiser_and_dropout_where_they_were(
    optim: str, wide_model: Path, make_experiment: MakeExperiment
) -> None:
    """Sums on a GPU need not come in one order, so equal to many digits, not to the bit."""
    finetune = {"model": str(wide_model), "optim": optim, "lora_dropout": 0.2, "max_to_eval": 4}
    whole = run_there(make_experiment("whole", finetune=finetune))
    folder, stop = make_experiment("stopped", finetune=finetune), threading.Event()

    def listener(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            stop.set()

    with pytest.raises(InterruptedRunError):
        run_there(folder, stop=stop, listener=listener)
    resumed = run_there(folder)
    assert resumed["train_losses"] == pytest.approx(whole["train_losses"], rel=1e-3)
