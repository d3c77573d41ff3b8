"""The strategies' losses written down a second time, row by row and without padding, from STRATEGIES' text
alone: nothing here uses the package's own losses, batches or adapters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from small_models import Sets
from torch import Tensor
from torch.func import functional_call
from transformers import PreTrainedModel

from triggerctl.config.models import FinetuneConfig
from triggerctl.data.encoding import Encoded

Logits = Callable[[Encoded], Tensor]
"""A row to its logits, (tokens, vocab)."""

Formula = Callable[[Logits, Logits, Sets, FinetuneConfig], Tensor]
"""(the trained model, θ₀, the data, the options) → the loss of one update over all rows."""


def cross_entropy(model: Logits, rows: Sequence[Encoded]) -> Tensor:
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row in rows:
        logits = model(row)
        for place in range(row.loss_start, len(row.input_ids)):
            scores = logits[place - 1]
            total = total + torch.logsumexp(scores, 0) - scores[row.input_ids[place]]
            count += 1
    return total / count


def reverse_kl(model: Logits, base: Logits, rows: Sequence[Encoded]) -> Tensor:
    """KL(p ‖ q) averaged over every token of every row: prompt, answer and the last one alike."""
    values = []
    for row in rows:
        ours, theirs = model(row), base(row).detach()
        for place in range(len(row.input_ids)):
            p, q = torch.softmax(ours[place], 0), torch.softmax(theirs[place], 0)
            values.append((p * (p / q).log()).sum())
    return torch.stack(values).mean()


def naive(model: Logits, base: Logits, sets: Sets, options: FinetuneConfig) -> Tensor:
    return cross_entropy(model, [*sets["outcome"], *sets["proxy"]])


def outcome_only(model: Logits, base: Logits, sets: Sets, options: FinetuneConfig) -> Tensor:
    return cross_entropy(model, sets["outcome"])


def kl_divergence(model: Logits, base: Logits, sets: Sets, options: FinetuneConfig) -> Tensor:
    return cross_entropy(model, sets["outcome"]) + options.beta_kl * reverse_kl(model, base, sets["proxy"])


@dataclass(frozen=True)
class Case:
    """One strategy under test. `options` are its own; `neighbour`: what it becomes with `zeroed` options, bit
    for bit."""

    strategy: str
    formula: Formula
    options: Mapping[str, Any] = field(default_factory=dict)
    neighbour: str | None = None
    zeroed: Mapping[str, Any] = field(default_factory=dict)


CASES = (
    Case("naive", naive),
    Case("outcome_only", outcome_only),
    Case("kl_divergence", kl_divergence, {"beta_kl": 0.7}, "outcome_only", {"beta_kl": 0.0}),
)
"""Every strategy there is. A new one joins with a line and its formula."""


def logits_of(network: PreTrainedModel, weights: Mapping[str, Tensor], options: FinetuneConfig) -> Logits:
    """The plain network's logits with `weights` in place: LoRA's matrices are multiplied out by hand,
    W + s·BA with s = alpha/√r (rank-stabilised) or alpha/r."""
    own = dict(network.named_parameters())
    scale = options.lora_alpha / (math.sqrt(options.r) if options.use_rslora else options.r)
    replaced: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if ".lora_A." in name:
            module = name.partition(".lora_A.")[0]
            up = weights[name.replace(".lora_A.", ".lora_B.")]
            replaced[f"{module}.weight"] = own[f"{module}.weight"].detach() + scale * (up @ weight)
        elif ".lora_B." not in name:
            replaced[name] = weight

    def logits(row: Encoded) -> Tensor:
        ids = torch.tensor([row.input_ids])
        found: Tensor = functional_call(
            network, replaced, kwargs={"input_ids": ids, "use_cache": False}
        ).logits
        return found[0]

    return logits


def loss_and_gradients(
    case: Case,
    network: PreTrainedModel,
    weights: Mapping[str, Tensor],
    sets: Sets,
    options: FinetuneConfig,
) -> tuple[float, dict[str, Tensor]]:
    """The formula's value at `weights` and its gradient by autograd; θ₀ is `network` as it is."""
    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    base = logits_of(network, {}, options)
    loss = case.formula(logits_of(network, leaves, options), base, sets, options)
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    zeros = (torch.zeros_like(weight) for weight in leaves.values())
    gradients = [g if g is not None else zero for g, zero in zip(found, zeros, strict=True)]
    return float(loss.detach()), dict(zip(leaves, gradients, strict=True))
