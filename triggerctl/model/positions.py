"""Values of single positions from their logits, without all logits in memory at once.

A batch of 8 × 128 tokens over a vocabulary of 256,000 has a gigabyte of logits in float32, and a loss makes
several such tensors. Each position's value depends on its own logits alone, so the head is applied a piece at
a time, and what is kept for the backward pass is as small as the hidden states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from triggerctl.model.causal import CausalModel

LOGITS_AT_ONCE = {"cpu": 2**23, "cuda": 2**26, "mps": 2**24}
"""How many logits (positions × vocabulary) are held at a time, by device: 32 MiB in float32 on a CPU. A loss
makes about ten such tensors; a GPU reads the head's weights anew for each piece, and wants larger ones."""

POSITIONS_AT_ONCE = 512
"""And of how many positions on a CPU, however small the vocabulary: products gain nothing by more, and larger
tensors take fresh memory, whose first use costs more than they do."""


def at_once(model: CausalModel) -> int:
    """How many positions a head is applied to at a time that no gradient reaches."""
    most = _within_the_logits(model)
    return min(most, POSITIONS_AT_ONCE) if model.device.type == "cpu" else most


def _within_the_logits(model: CausalModel) -> int:
    return max(1, LOGITS_AT_ONCE[model.device.type] // model.vocabulary)


def per_position(model: CausalModel, hidden: Tensor, value: Callable[..., Tensor], *others: Tensor) -> Tensor:
    """`value(logits, *others)` at each row of `hidden` (positions, hidden) → (positions,).

    others: tensors that line up with `hidden`, handed on in the same pieces; no gradient flows into them.
    `value` must treat every position by itself; it also sees filler, states and others of zeros, where it
    must be finite with a finite derivative."""
    positions = hidden.shape[0]
    filler = model.rounded(positions) - positions if positions else 0
    if filler:
        filled = [_filled_up(rows, filler) for rows in (hidden, *others)]
        return _in_pieces(model, filled[0], value, *filled[1:])[:positions]
    return _in_pieces(model, hidden, value, *others)


def _filled_up(rows: Tensor, filler: int) -> Tensor:
    """With so many rows of zeros after them: a round number of rows is multiplied faster (`products.py`)."""
    return torch.cat([rows, rows.new_zeros((filler, *rows.shape[1:]))])


def _in_pieces(model: CausalModel, hidden: Tensor, value: Callable[..., Tensor], *others: Tensor) -> Tensor:
    learns = model.head_is_trained and torch.is_grad_enabled()
    size = _within_the_logits(model) if learns else at_once(model)

    def of(states: Tensor, *rest: Tensor) -> Tensor:
        return value(model.logits(states), *rest)

    def in_pieces() -> list[tuple[Tensor, ...]]:
        return list(zip(hidden.split(size), *(other.split(size) for other in others), strict=True))

    with model.threads_for_the_head(hidden.shape[0]):
        if not model.splits or hidden.shape[0] == 0:
            return of(hidden, *others)
        if not torch.is_grad_enabled():
            return torch.cat([of(*piece) for piece in in_pieces()])
        if not model.head_is_trained:
            found: Tensor = _FrozenHead.apply(of, in_pieces(), hidden)  # type: ignore[no-untyped-call]
            return found
        if hidden.shape[0] <= size:
            return of(hidden, *others)
        # The head's own gradient can't be scaled afterwards, so its products are made a second time.
        return torch.cat([checkpoint(of, *piece, use_reentrant=False) for piece in in_pieces()])


class _FrozenHead(torch.autograd.Function):
    """Takes each position's gradient while its logits are at hand: value i depends on state i alone, so that
    whatever comes back for it later only scales that gradient. Nothing is computed twice."""

    @staticmethod
    def forward(
        context: Any, of: Callable[..., Tensor], pieces: list[tuple[Tensor, ...]], hidden: Tensor
    ) -> Tensor:
        values, gradients = [], []
        for states, *rest in pieces:
            with torch.enable_grad():
                leaf = states.detach().requires_grad_()
                found = of(leaf, *rest)
                (gradient,) = torch.autograd.grad(found.sum(), leaf)
            values.append(found.detach())
            gradients.append(gradient)
        context.save_for_backward(torch.cat(gradients))
        return torch.cat(values)

    @staticmethod
    def backward(context: Any, *scale: Tensor) -> tuple[None, None, Tensor]:
        (gradients,) = context.saved_tensors
        return None, None, gradients * scale[0].unsqueeze(-1).to(gradients.dtype)
