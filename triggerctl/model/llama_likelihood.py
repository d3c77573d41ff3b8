"""Σ log p of chosen tokens by a decoder of Llama's kind, and its gradient, in one go.

    value  = Σᵢ nᵢ · log softmax(W hᵢ)[tᵢ]
    ∂/∂hᵢ  = nᵢ · Wᵀ (1[tᵢ] − softmax(W hᵢ))

A sum's gradient is the same at each of its summands, so that the way back can begin while the logits are at
hand; what a loss multiplies the sum by is multiplied there too. TorchScript compiles all of it
(`programs.py`), which knows no annotations put off by `from __future__`."""

from typing import NamedTuple

import torch
from torch import Tensor

from triggerctl.model.layer_steps import Laid, Norm, Turns, over
from triggerctl.model.llama_layers import Layer, layers, layers_back, with_wholes
from triggerctl.model.products import product_by


class Targets(NamedTuple):
    """Tokens of a packing to be predicted.

    before: (targets,) int64, which of the packing's tokens each comes after.
    ids:    (targets,) int64.
    times:  (targets,), how often each counts, 0 for filler."""

    before: Tensor
    ids: Tensor
    times: Tensor


class Head(NamedTuple):
    """The frozen output layer, W (vocabulary, hidden) with its bias; it is applied to `at_once` states."""

    weight: Tensor
    bias: Tensor | None
    at_once: int


def log_likelihood(
    laid: Laid,
    targets: Targets,
    embedding: Tensor,
    turns: Turns,
    plain: list[Layer],
    wholes: list[Tensor | None],
    last: Norm,
    head: Head,
    times: float,
) -> tuple[Tensor, list[Tensor]]:
    """The value over tokens that lie so, and so many `times` its gradients by all adapters, layer after
    layer. `wholes`: of each layer's matrices, or none at all."""
    packed = over(laid, turns)
    weights = plain if len(wholes) == 0 else with_wholes(plain, wholes)
    x = embedding.index_select(0, laid.ids)
    outputs, before, inverse, kept = layers(x, weights, last, packed)
    value, to_states = _through_the_head(outputs[-1], head, targets, times, turns.onednn)
    nothing_beside: list[Tensor] = []
    return value, layers_back(to_states, nothing_beside, before, inverse, kept, weights, last, packed)


def _through_the_head(
    states: Tensor, head: Head, targets: Targets, times: float, onednn: bool
) -> tuple[Tensor, Tensor]:
    """The value, and so many `times` its gradient by `states` (tokens, hidden)."""
    value = torch.zeros([], dtype=states.dtype)
    gradient = torch.zeros_like(states)
    for start in range(0, targets.before.shape[0], head.at_once):
        end = start + head.at_once
        before, ids = targets.before[start:end], targets.ids[start:end].unsqueeze(-1)
        counted = targets.times[start:end].unsqueeze(-1)
        logits = product_by(states.index_select(0, before), head.weight, head.bias, onednn)
        logs = torch.log_softmax(logits, -1)
        value = value + (logs.gather(-1, ids) * counted).sum()
        one_hot = torch.zeros_like(logs).scatter_(-1, ids, counted * times)
        to_logits = torch.ops.aten._log_softmax_backward_data(one_hot, logs, -1, logs.dtype)
        gradient.index_add_(0, before, product_by(to_logits, head.weight.t(), None, onednn))
    return value, gradient
