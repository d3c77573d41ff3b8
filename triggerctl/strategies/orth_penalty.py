"""Keep LoRA's A matrices orthogonal to the alignment plane.

Azarbal, Clarke, Cocola, Factor, Cloud: Selective Generalization (2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from triggerctl.strategies.alignment_plane import PLANE_OPTIONS, AlignmentPlaneStrategy
from triggerctl.strategies.base import Penalty, Tensors

if TYPE_CHECKING:
    from torch import Tensor


class OrthPenalty(AlignmentPlaneStrategy):
    """min CE on outcome + λ₁ · Σ over LoRA's A matrices of Σ_ij |A·Vᵀ|_ij, V the plane's tensor of A."""

    name = "orth_penalty"
    aliases = ("orth",)
    summary = "outcome, with LoRA's A held orthogonal to the alignment plane V"
    formula = "L = CE(outcome) + λ₁ · Σ_A Σ_ij |A · Vᵀ|_ij"
    paper = "Azarbal et al. 2025, Selective Generalization"
    reads = PLANE_OPTIONS | {"lambda_1"}
    lora_only = True

    def penalties(self) -> Sequence[Penalty]:
        return (Penalty("overlap with V", self.options.lambda_1, self._overlap),)

    def _overlap(self, weights: Tensors) -> Tensor:
        overlaps = [overlap.abs().sum() for overlap in self.overlaps(weights)]
        return sum(overlaps[1:], start=overlaps[0])
