"""Losses written down a second time, row by row and without padding, from STRATEGIES' text alone: nothing
here uses the package's own losses, batches or adapters. A set without rows counts as zero: it sits out.

Used by tests/strategies: pytest tests/strategies"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import PreTrainedModel

from triggerctl.config.models import FinetuneConfig
from triggerctl.data.encoding import Encoded

Weights = dict[str, Tensor]
Rows = Sequence[Encoded]


class Model:
    """The plain network with `weights` in place, W + s·BA for LoRA's; `under` is added to W before, matrix by
    matrix."""

    def __init__(
        self,
        network: PreTrainedModel,
        weights: Mapping[str, Tensor],
        options: FinetuneConfig,
        under: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.network = network
        own = dict(network.named_parameters())
        # Around a bias trained beside LoRA's matrices there is a layer more.
        self._replaced = {n.replace(".base_layer.", "."): w for n, w in weights.items() if ".lora_" not in n}
        grown = {module: scale(options) * (b @ a) for module, (a, b) in matrices(weights).items()}
        for module in {**grown, **(under or {})}:
            parts = [
                own[f"{module}.weight"].detach(),
                *(d[module] for d in (under or {}, grown) if module in d),
            ]
            self._replaced[f"{module}.weight"] = torch.stack(parts).sum(0)
        self._found: dict[tuple[int, ...], tuple[Tensor, tuple[Tensor, ...]]] = {}

    def logits(self, row: Encoded) -> Tensor:
        """(tokens, vocab)."""
        return self._run(row)[0]

    def states(self, row: Encoded) -> tuple[Tensor, ...]:
        """h_1 … h_L, each (tokens, hidden)."""
        return self._run(row)[1]

    def _run(self, row: Encoded) -> tuple[Tensor, tuple[Tensor, ...]]:
        if row.input_ids not in self._found:
            said = functional_call(
                self.network,
                self._replaced,
                kwargs={
                    "input_ids": torch.tensor([row.input_ids]),
                    "use_cache": False,
                    "output_hidden_states": True,
                },
            )
            layers = tuple(layer[0] for layer in said.hidden_states[1:])
            self._found[row.input_ids] = said.logits[0], layers
        return self._found[row.input_ids]


def scale(options: FinetuneConfig) -> float:
    """s = alpha/√r (rank-stabilised) or alpha/r."""
    return options.lora_alpha / (math.sqrt(options.r) if options.use_rslora else options.r)


def matrices(weights: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Adapted module → its A (r × in) and B (out × r)."""
    return {
        name.partition(".lora_A.")[0]: (weight, weights[name.replace(".lora_A.", ".lora_B.")])
        for name, weight in weights.items()
        if ".lora_A." in name
    }


def log_probabilities(logits: Tensor, row: Encoded, first: int) -> list[Tensor]:
    """log p of the row's tokens from place `first` on; nothing predicts the token at place 0."""
    return [
        logits[place - 1][row.input_ids[place]] - torch.logsumexp(logits[place - 1], 0)
        for place in range(max(1, first), len(row.input_ids))
    ]


def cross_entropy(model: Model, rows: Rows) -> Tensor:
    """The mean over all loss tokens of all rows."""
    found = [value for row in rows for value in log_probabilities(model.logits(row), row, row.loss_start)]
    return -torch.stack(found).mean() if found else torch.zeros(())


def reverse_kl(model: Model, base: Model, rows: Rows) -> Tensor:
    """KL(p ‖ q) averaged over every token of every row: prompt, answer and the last one alike."""
    found = []
    for row in rows:
        ours, theirs = model.logits(row), base.logits(row).detach()
        for place in range(len(row.input_ids)):
            p, q = torch.softmax(ours[place], 0), torch.softmax(theirs[place], 0)
            found.append((p * (p / q).log()).sum())
    return torch.stack(found).mean() if found else torch.zeros(())


def drift(model: Model, base: Model, rows: Rows) -> Tensor:
    """Σ over layers of the mean square, over tokens and hidden units, of what h_l has moved."""
    total, tokens, units = torch.zeros((), dtype=torch.float64), 0, 1
    for row in rows:
        tokens += len(row.input_ids)
        for ours, theirs in zip(model.states(row), base.states(row), strict=True):
            units = ours.shape[-1]
            total = total + (ours - theirs.detach()).square().sum()
    return total / (max(1, tokens) * units)


def preference(
    model: Model, base: Model, wanted: Rows, unwanted: Rows, *, beta: float, normalised: bool
) -> Tensor:
    """mean of −log σ(β·(gain of the wanted answer − gain of the unwanted one)), twins by source row."""

    def gain(row: Encoded) -> Tensor:
        """log π_θ(answer) − log π_θ₀(answer): a mean over its tokens, or their sum."""
        ours = torch.stack(log_probabilities(model.logits(row), row, row.prompt_length))
        theirs = torch.stack(log_probabilities(base.logits(row).detach(), row, row.prompt_length))
        return ours.mean() - theirs.mean() if normalised else ours.sum() - theirs.sum()

    twins = {row.row: row for row in unwanted}
    found = [torch.log1p(torch.exp(-beta * (gain(row) - gain(twins[row.row])))) for row in wanted]
    return torch.stack(found).mean() if found else torch.zeros(())
