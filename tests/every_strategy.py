"""Every strategy with options under which it does something, and an experiment that trains it in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

PLANE: dict[str, Any] = {"positive_proxy": "proxy", "negative_proxy": "proxy_neg", "proxy_epochs": 3}

OPTIONS: dict[str, dict[str, Any]] = {
    "naive": {},
    "outcome_only": {},
    "positive_negative_proxy": {"lambda_proxy": 0.5, "neg_lambda_proxy": 0.5, "beta_kl": 0.0},
    "kl_divergence": {"beta_kl": 1.0},
    "representation_constraint": {"beta_representation": 1.0},
    "grad_project": {},
    "grad_project_precomputed_proxy_grad": {},
    "orth_penalty": {**PLANE, "lambda_1": 2.0},
    "directional_penalty": {**PLANE, "lambda_1": 0.5},
    "steering_weights": {**PLANE, "steering_alpha": 0.5},
    "steering_weights_add_alignment_plane": {**PLANE, "steering_alpha": 0.5},
    "safe_lora": {"proxy_epochs": 2, "safe_lora_type": "number", "safe_lora_num_proj_layers": 3},
    "dpo": {"lambda_dpo": 1.0, "beta": 0.5},
    "o_lora": {"proxy_epochs": 2, "lambda_1": 0.5},
}
"""Strategy → options of `finetune_config`."""


def experiment_for(
    strategy: str, make_experiment: Callable[..., Path], *, name: str | None = None, **finetune: Any
) -> Path:
    """A small experiment for the strategy, in a folder of its name unless another is given."""
    values = {"per_device_train_batch_size": 8, "max_to_eval": 6, "learning_rate": 3e-3}
    return make_experiment(
        name or strategy,
        experiment_name="one",
        proxy_strategy=strategy,
        finetune={**values, **OPTIONS[strategy], **finetune},
    )
