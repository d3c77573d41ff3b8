"""What a model does that others don't, read off its configuration and its layers."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from triggerctl.model.evaluating import evaluating


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


def head_stands_alone(network: PreTrainedModel) -> bool:
    """Whether head(decoder(x)) is the model's own logits; some models scale or cap them in ways of their
    own."""
    decoder, head = network.base_model, network.get_output_embeddings()
    if head is None or decoder is network:
        return False
    ids = torch.arange(1, 9, device=network.device).remainder(network.config.get_text_config().vocab_size)
    try:
        with evaluating(network):
            whole = network(input_ids=ids.unsqueeze(0), use_cache=False).logits
            states = decoder(input_ids=ids.unsqueeze(0), use_cache=False).last_hidden_state
            parts = logit_rule(network)(head(states))
    except (AttributeError, TypeError):
        return False
    return parts.shape == whole.shape and bool(torch.allclose(parts, whole, rtol=1e-5, atol=1e-5))
