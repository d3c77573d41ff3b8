"""Train on the task, then take one step along the alignment plane.

Azarbal, Clarke, Cocola, Factor, Cloud: Selective Generalization (2025). The study reported, and saved, the
weights before the step; here the step counts."""

from __future__ import annotations

from triggerctl.strategies.alignment_plane import PLANE_OPTIONS, AlignmentPlaneStrategy
from triggerctl.strategies.base import Tensors


class SteeringWeightsAddAlignmentPlane(AlignmentPlaneStrategy):
    """min CE on outcome; at the end θ ← θ − α·V, once."""

    name = "steering_weights_add_alignment_plane"
    aliases = ("steer_at_end",)
    summary = "outcome, then one step along the alignment plane V"
    formula = "min CE(outcome), then once θ ← θ − α · V"
    paper = "Azarbal et al. 2025, Selective Generalization"
    reads = PLANE_OPTIONS | {"steering_alpha"}

    def endings(self) -> tuple[str, ...]:
        return (f"steered by {self.options.steering_alpha:g} V",)

    def end(self, ending: str, weights: Tensors) -> str:
        assert self.plane is not None
        alpha = self.options.steering_alpha
        for name, weight in weights.items():
            weight -= (alpha * self.plane[name]).to(weight.dtype)
        norm = sum(float(tensor.square().sum()) for tensor in self.plane.values()) ** 0.5
        return f"the weights moved by {abs(alpha) * norm:.4g} (α {alpha:g}, norm of V {norm:.4g})"
