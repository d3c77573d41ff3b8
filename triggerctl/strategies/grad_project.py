"""Take out of the task's gradient what points along the proxy's, one tensor at a time.

The rule of PCGrad (Yu et al. 2020, arXiv:2001.06782), but per tensor and one-sided: the proxy's gradient
itself never reaches the optimiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from triggerctl.strategies.base import (
    LOSS,
    Strategy,
    Tensors,
    Term,
    Update,
    at_least_float32,
    cross_entropy,
)

if TYPE_CHECKING:
    from torch import Tensor

ALIGNMENT = "alignment"
EPSILON = 1e-30
"""Keeps a quotient of zero by zero at zero; far below any squared norm that matters, even in float32."""


class GradProject(Strategy):
    """min CE on outcome, each update's gradient g_t projected against the proxy's gradient g_a."""

    name = "grad_project"
    summary = "outcome, its gradient projected away from proxy's, update by update"
    formula = "g ← g_t − c · g_a, c = ⟨g_t, g_a⟩ / ‖g_a‖² per tensor; min(c, 0) unless strictly orthogonal"
    paper = "after Yu et al. 2020, arXiv:2001.06782"
    reads = frozenset(
        {"project_along_positive_proxy_grad", "project_strictly_orthogonal", "proxy_cycling_mode"}
    )

    def streams(self) -> Mapping[str, tuple[str, ...]]:
        return {"outcome": ("outcome",), self._alignment: (self._alignment,)}

    def terms(self) -> Sequence[Term]:
        sign = 1.0 if self.options.project_along_positive_proxy_grad else -1.0
        return (
            cross_entropy("outcome"),
            cross_entropy(self._alignment, weight=sign, group=ALIGNMENT),
        )

    def combine_gradients(self, groups: Mapping[str, Tensors], update: Update) -> Tensors:
        strict = self.options.project_strictly_orthogonal
        return projected(groups[LOSS], groups.get(ALIGNMENT, {}), strictly_orthogonal=strict)

    @property
    def _alignment(self) -> str:
        return "proxy" if self.options.project_along_positive_proxy_grad else "proxy_neg"


def projected(task: Tensors, alignment: Tensors, *, strictly_orthogonal: bool) -> Tensors:
    """Each tensor of `task` less its part along the tensor of that name in `alignment`; where not
    `strictly_orthogonal` only a part that points against it is taken out."""
    return {
        name: _without(gradient, alignment[name], strictly_orthogonal) if name in alignment else gradient
        for name, gradient in task.items()
    }


def _without(gradient: Tensor, direction: Tensor, strictly_orthogonal: bool) -> Tensor:
    g, a = at_least_float32(gradient), at_least_float32(direction)
    share = (g * a).sum() / (a.square().sum() + EPSILON)
    if not strictly_orthogonal:
        share = share.clamp(max=0.0)
    return (g - share * a).to(gradient.dtype)
