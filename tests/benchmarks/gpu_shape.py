"""A model in the shape of Gemma 2 with 2.6 billion random weights, trained as the published study trained:
where there is a GPU it is measured on a part of the rows and the whole run's time follows; where there is
none, that time is estimated from parameters, tokens and the share of its peak that a GPU should reach."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ways import OURS, Bench, compare

import triggerctl

TINY = Path(triggerctl.__file__).parent / "assets" / "models" / "tiny"

SHAPE = {
    "vocab_size": 256_000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "tie_word_embeddings": True,
}

STUDY_ROWS = 7_500
"""Trained on in each epoch: 0.3 of 25,000."""

STUDY_EPOCHS = 15
STUDY_SETS, STUDY_EVALUATED = 6, 100
TOKENS_PER_ROW = 100
LORA, FORWARD = 4, 2
USE = 0.4
"""Share of its peak that a GPU is expected to reach in training."""

PEAKS = {"RTX 4090": 165e12, "A100": 312e12, "H100": 989e12}
"""Operations a second in dense bfloat16 products, as their maker says."""

SETTINGS = (
    "learning_rate=5e-5",
    "per_device_train_batch_size=64",
    "max_dataset_size=2000",
    "max_to_eval=100",
    "epochs=1",
    "limit_proxy_data_to=null",
)


def gpu_shape(bench: Bench, *, repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The comparison of ways on this shape and the whole run's time, or the estimate."""
    import torch

    if not torch.cuda.is_available():
        return {"estimates": estimates()}
    folder = bench.folder / "shape"
    write_model(folder)
    on_it = replace(bench, model=str(folder), settings=(*bench.settings, *SETTINGS), device="cuda")
    found = compare(on_it, repeats=repeats, with_trl=False, tune=True, say=say)
    return {**found, "whole_run_seconds": whole_run(found)}


def estimates() -> dict[str, Any]:
    """Seconds of a whole run of the study's by GPU, training and evaluation apart."""
    parameters = parameters_of_shape()
    trained = STUDY_ROWS * STUDY_EPOCHS * TOKENS_PER_ROW
    evaluated = STUDY_SETS * STUDY_EVALUATED * (STUDY_EPOCHS + 1) * TOKENS_PER_ROW
    return {
        "parameters": parameters,
        "trained_tokens": trained,
        "evaluated_tokens": evaluated,
        "use": USE,
        "gpus": {
            name: {
                "training": trained * LORA * parameters / (USE * peak),
                "evaluation": evaluated * FORWARD * parameters / (USE * peak),
            }
            for name, peak in PEAKS.items()
        },
    }


def whole_run(found: dict[str, Any]) -> float:
    """Seconds of the study's run at the speeds that were measured on a part of it."""
    row = found["ways"][OURS]
    trained = STUDY_ROWS * STUDY_EPOCHS * TOKENS_PER_ROW
    training = float(trained / row["trained_tokens_per_second"])
    evaluation = row["evaluation_seconds"] / found["evaluation"]["times"] * (STUDY_EPOCHS + 1)
    rest = row["wall_seconds"] - row["training_seconds"] - row["evaluation_seconds"]
    return float(training + evaluation + rest)


def parameters_of_shape() -> int:
    """Counted on no device."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        network: torch.nn.Module = LlamaForCausalLM(LlamaConfig(**SHAPE))  # type: ignore[arg-type]
    return sum(weight.numel() for weight in network.parameters())


def write_model(folder: Path) -> None:
    """Random weights in this shape, with the embedded model's words."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(TINY / name, folder / name)
    torch.manual_seed(0)
    tokens = {"bos_token_id": 1, "eos_token_id": 4, "pad_token_id": 0}
    config = LlamaConfig(**SHAPE, **tokens, max_position_embeddings=512)  # type: ignore[arg-type]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        LlamaForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(before)
