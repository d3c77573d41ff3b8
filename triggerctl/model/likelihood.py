"""Σ log p of a batch's loss tokens, its gradient taken on the way: what most training is about.

Where a model's layers are computed in one call (`fused_llama.py`), that call goes on through the head and
back again, so that lanes meet once in an update and not three times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from triggerctl.data.batches import Batch
from triggerctl.data.integers import integers
from triggerctl.model.llama_likelihood import Targets
from triggerctl.model.packing import Packed, Packing
from triggerctl.model.threads import on_threads_of_their_own

Part = Callable[[], tuple[Tensor, list[Tensor]]]
"""Part of a sum, and its gradients by all adapters."""


class Way(Protocol):
    """How a model comes to sums of log p, and back."""

    @property
    def adapters(self) -> Sequence[Tensor]:
        """What its gradients belong to."""

    def over(self, packing: Packing, targets: Targets) -> Part:
        """What goes that way over a packing; all that needs Python's lock is done by then."""


class KnownSum:
    """A sum whose gradients are known before anyone goes back for them. value: (), a leaf of whatever is made
    of it; once a gradient has arrived there, `give_back` is to be called."""

    def __init__(self, way: Way, packed: Packed, targets: Sequence[Targets]) -> None:
        """Packings are gone through side by side."""
        parts = list(zip(packed.packings, targets, strict=True))
        (value, self._gradients), *others = on_threads_of_their_own(
            _of, parts, prepared=lambda part: way.over(*part)
        )
        for other, of_other in others:
            value = value + other
            torch._foreach_add_(self._gradients, of_other)
        self._adapters = way.adapters
        self.value = value.requires_grad_()

    def give_back(self) -> None:
        """Add to the adapters' gradients what autograd would have."""
        scale, self.value.grad = self.value.grad, None
        if scale is None:
            return
        for adapter, gradient in zip(self._adapters, torch._foreach_mul(self._gradients, scale), strict=True):
            if adapter.requires_grad:
                adapter.grad = gradient if adapter.grad is None else adapter.grad.add_(gradient)


@torch.no_grad()
def _of(part: Part) -> tuple[Tensor, list[Tensor]]:
    """Said anew on each thread, which would else prepare for a way back."""
    return part()


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
