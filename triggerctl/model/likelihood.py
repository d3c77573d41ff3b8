"""Σ log p of a batch's loss tokens, its gradient taken on the way: what most training is about.

Where a model's layers are computed in one call (`fused_llama.py`), that call goes on through the head and
back again, so that lanes meet once in a micro-batch and not three times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from triggerctl.data.batches import Batch
from triggerctl.model.llama_likelihood import Targets
from triggerctl.model.packing import Packed, Packing
from triggerctl.model.threads import on_threads_of_their_own

Summing = Callable[[], tuple[Tensor, list[Tensor]]]
"""Computes part of a sum, (), and its gradients by all adapters."""


class ThereAndBack(Protocol):
    """How a model comes to Σ log p over a packing, and to its gradients by `adapters`."""

    @property
    def adapters(self) -> Sequence[Tensor]: ...

    def over(self, packing: Packing, targets: Targets, times: float) -> Summing:
        """What computes it and so many `times` its gradients; as little as can be is left to do in Python."""


@dataclass(slots=True)
class KnownSum:
    """A sum whose gradients are known before anyone goes back for them. value: (), a leaf of whatever is made
    of it. Once a gradient has arrived there, `give_back` is to be called; or `hand_over` where nothing is
    made of it, as of a sum whose gradients are so many times its own."""

    value: Tensor
    gradients: list[Tensor]
    adapters: Sequence[Tensor]

    def give_back(self) -> None:
        """Add to the adapters' gradients what autograd would have."""
        scale, self.value.grad = self.value.grad, None
        if scale is not None:
            self._add(torch._foreach_mul(self.gradients, scale))

    def hand_over(self) -> None:
        """Add the gradients to the adapters' as they are, whose own they are from then on."""
        gradients, self.gradients = self.gradients, []
        self._add(gradients)

    def _add(self, gradients: Sequence[Tensor]) -> None:
        for adapter, gradient in zip(self.adapters, gradients, strict=True):
            if adapter.requires_grad:
                adapter.grad = gradient if adapter.grad is None else adapter.grad.add_(gradient)


def known_sum(way: ThereAndBack, packed: Packed, targets: Sequence[Targets], times: float) -> KnownSum:
    """The sum over all packings, which are gone through side by side, and so many `times` its gradients."""
    parts = list(zip(packed.packings, targets, strict=True))
    (value, gradients), *others = on_threads_of_their_own(
        _without_a_graph, parts, prepared=lambda part: way.over(*part, times)
    )
    for other, of_other in others:
        value = value + other
        torch._foreach_add_(gradients, of_other)
    return KnownSum(value.requires_grad_(), gradients, way.adapters)


@torch.no_grad()
def _without_a_graph(part: Summing) -> tuple[Tensor, list[Tensor]]:
    """Said on each thread: one that isn't told prepares for a way back."""
    return part()


@dataclass(frozen=True, slots=True)
class Distinct:
    """Tokens to be predicted, each once that rows have in common.

    at, before: (distinct,) int64, which of the model's tokens each is, ascending, and which it comes after.
    ids:        (distinct,) int64.
    which:      (targets,) int64, which of these each target is."""

    at: Tensor
    before: Tensor
    ids: Tensor
    which: Tensor


def distinct(at: Tensor, batch: Batch, targets: Tensor) -> Distinct:
    """at: (places,) int64, which of the model's tokens each place of the batch is; targets: (targets,) int64,
    places of the batch."""
    found, which = torch.unique(at.index_select(0, targets), return_inverse=True)
    before, ids = (
        torch.empty_like(found).scatter_(0, which, each.index_select(0, of))
        for each, of in ((at, targets - 1), (batch.at_places(batch.input_ids), targets))
    )
    return Distinct(found, before, ids, which)


def targets_in(
    packed: Packed, batch: Batch, dtype: torch.dtype, rounded: Callable[[int], int]
) -> list[Targets]:
    """The batch's loss tokens in each packing, filled up to `rounded(targets)`; counted in `dtype`."""
    at, targets = packed.places().numpy(), batch.loss_at.numpy()
    ids = np.concatenate([np.asarray(row) for row in batch.rows])
    tokens, first, times = np.unique(at[targets], return_index=True, return_counts=True)
    first = targets[first]
    sizes = [packing.ids.numel() for packing in packed.packings]
    ends = np.cumsum(sizes)
    found: list[Targets] = []
    for size, end, span in zip(sizes, ends, np.searchsorted(tokens, [ends - sizes, ends]).T, strict=True):
        of_packing = slice(*span)
        which = first[of_packing]
        filled = np.zeros((2, rounded(len(which))), dtype=np.int64)
        filled[:, : len(which)] = at[which - 1] - (end - size), ids[which]
        counted = torch.zeros(filled.shape[1], dtype=dtype)
        counted[: len(which)] = torch.from_numpy(times[of_packing])
        before, following = torch.from_numpy(filled)
        found.append(Targets(before, following, counted))
    return found
