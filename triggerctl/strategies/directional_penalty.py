"""Pull LoRA's A matrices along the alignment plane.

Azarbal, Clarke, Cocola, Factor, Cloud: Selective Generalization (2025). The study's definition, kept for
comparison: along +V the proxy's loss rises, and the penalty has no lower bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from triggerctl.config.models import ExperimentConfig
from triggerctl.strategies.alignment_plane import PLANE_OPTIONS, AlignmentPlaneStrategy
from triggerctl.strategies.base import Check, Penalty, Tensors

if TYPE_CHECKING:
    from torch import Tensor


class DirectionalPenalty(AlignmentPlaneStrategy):
    """min CE on outcome − λ₁ · Σ over LoRA's A matrices of Σ_ij (A·Vᵀ)_ij."""

    name = "directional_penalty"
    summary = "outcome, with LoRA's A pulled along the alignment plane V (the study's sign)"
    formula = "L = CE(outcome) − λ₁ · Σ_A Σ_ij (A · Vᵀ)_ij"
    paper = "Azarbal et al. 2025, Selective Generalization"
    reads = PLANE_OPTIONS | {"lambda_1"}
    lora_only = True

    @classmethod
    def check(cls, config: ExperimentConfig) -> Check:
        found = super().check(config)
        note = "directional_penalty pulls along +V, where the proxy's loss rises, and has no lower bound"
        return Check(found.errors, (*found.warnings, f"{note}: the study's definition, kept to compare."))

    def penalties(self) -> Sequence[Penalty]:
        return (Penalty("alignment with V", -self.options.lambda_1, self._alignment),)

    def _alignment(self, weights: Tensors) -> Tensor:
        overlaps = [overlap.sum() for overlap in self.overlaps(weights)]
        return sum(overlaps[1:], start=overlaps[0])
