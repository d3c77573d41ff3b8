"""What a model does that others don't, read off its configuration and its layers."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def draws(network: PreTrainedModel) -> bool:
    """Whether training draws random numbers in a forward pass: dropout layers say so, or the configuration
    where attention drops or a router adds noise."""
    layers = any(isinstance(layer, nn.Dropout) and layer.p > 0 for layer in network.modules())
    return layers or any(
        isinstance(value, float) and value > 0 and any(word in name for word in ("drop", "jitter", "noise"))
        for name, value in network.config.get_text_config().to_dict().items()
    )


def keeps_state(network: PreTrainedModel) -> bool:
    """Whether a forward pass leaves something in the model that the next reads: rotary embeddings that grow
    with the longest sequence seen."""
    kinds = json.dumps(network.config.get_text_config().to_dict().get("rope_parameters"), default=str)
    return "dynamic" in kinds or "longrope" in kinds


def logit_rule(network: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """What the model does to its head's output. Gemma 2 caps logits by tanh."""
    cap = network.config.to_dict().get("final_logit_softcapping")
    if cap is None:
        return lambda logits: logits
    return lambda logits: torch.tanh(logits / cap) * cap
