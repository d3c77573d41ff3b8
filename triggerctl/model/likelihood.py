"""Σ log p of a batch's loss tokens, its gradient taken on the way: what most training is about.

Where a model's layers are computed in one call (`fused_llama.py`), that call goes on through the head and
back again, so that lanes meet once in an update and not three times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from triggerctl.data.batches import Batch
from triggerctl.data.integers import integers
from triggerctl.model.llama_likelihood import Targets
from triggerctl.model.packing import Packed
from triggerctl.model.threads import on_threads_of_their_own

Sum = Callable[[], tuple[Tensor, list[Tensor]]]
"""A part's sum, and its gradients by all adapters."""


def targets_in(packed: Packed, batch: Batch, like: Tensor, rounded: Callable[[int], int]) -> list[Targets]:
    """The batch's loss tokens by the packing in which they are, each once that rows have in common, filled up
    to a round number; `like`: of the kind in which they are to be counted."""
    at = integers([token for tokens in packed.at for token in tokens])
    distinct, which, times = torch.unique(
        at.index_select(0, batch.loss_at), return_inverse=True, return_counts=True
    )
    before, ids = (
        torch.empty_like(distinct).scatter_(0, which, each)
        for each in (
            at.index_select(0, batch.loss_at - 1),
            batch.at_places(batch.input_ids).index_select(0, batch.loss_at),
        )
    )
    sizes = integers([packing.ids.numel() for packing in packed.packings])
    ends = torch.searchsorted(distinct, sizes.cumsum(0)).tolist()
    found: list[Targets] = []
    first_token = start = 0
    for size, end in zip(sizes.tolist(), ends, strict=True):
        filler = rounded(end - start) - (end - start)
        of_part = (before[start:end] - first_token, ids[start:end], times[start:end].to(like.dtype))
        found.append(Targets(*(nn.functional.pad(each, (0, filler)) for each in of_part)))
        first_token, start = first_token + size, end
    return found


def summed(parts: Sequence[Sum], adapters: Sequence[Tensor]) -> Tensor:
    """The parts' sums together, () each, computed side by side; gradients reach `adapters`."""
    found: Tensor = _Summed.apply(parts, *adapters)  # type: ignore[no-untyped-call]
    return found


@torch.no_grad()
def _of(part: Sum) -> tuple[Tensor, list[Tensor]]:
    """On another thread gradients would be prepared for again."""
    return part()


class _Summed(torch.autograd.Function):
    """Knows its gradient before anyone comes back for it, who only scales that."""

    @staticmethod
    def forward(context: Any, parts: Sequence[Sum], *adapters: Tensor) -> Tensor:
        (value, gradients), *others = on_threads_of_their_own(_of, parts)
        for other, of_other in others:
            value = value + other
            torch._foreach_add_(gradients, of_other)
        context.gradients = gradients
        return value

    @staticmethod
    @once_differentiable
    def backward(context: Any, *scale: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *torch._foreach_mul(context.gradients, scale[0]))
