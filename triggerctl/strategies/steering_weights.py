"""Steer every update by the alignment plane.

Azarbal, Clarke, Cocola, Factor, Cloud: Selective Generalization (2025)."""

from __future__ import annotations

from collections.abc import Mapping

from triggerctl.config.models import ExperimentConfig
from triggerctl.strategies.alignment_plane import PLANE_OPTIONS, AlignmentPlaneStrategy
from triggerctl.strategies.base import Tensors, Update


class SteeringWeights(AlignmentPlaneStrategy):
    """min CE on outcome with α·V added to each gradient; with `direct_steering` the weights themselves move
    by −lr·α·V once the optimiser has stepped."""

    name = "steering_weights"
    aliases = ("steering",)
    summary = "outcome, every update steered by the alignment plane V"
    formula = "g ← ∇CE(outcome) + α · V before each update; direct: θ ← θ − lr · α · V after it"
    paper = "Azarbal et al. 2025, Selective Generalization"
    reads = PLANE_OPTIONS | {
        "steering_alpha",
        "alpha_scheduler_type",
        "final_steering_alpha",
        "alpha_warmup_steps",
        "direct_steering",
    }

    @classmethod
    def without_effect(cls, config: ExperimentConfig) -> Mapping[str, str]:
        if config.finetune_config.alpha_scheduler_type is not None:
            return super().without_effect(config)
        why = "alpha_scheduler_type is not set"
        return {
            **super().without_effect(config),
            "final_steering_alpha": why,
            "alpha_warmup_steps": why,
        }

    def with_plane(self, gradients: Tensors, update: Update) -> Tensors:
        alpha = self.alpha(update)
        if self.options.direct_steering or alpha == 0:
            return gradients
        assert self.plane is not None
        return {name: g + (alpha * self.plane[name]).to(g.dtype) for name, g in gradients.items()}

    def after_update(self, weights: Tensors, update: Update) -> None:
        if not self.options.direct_steering or update.phase in self.sides():
            return
        assert self.plane is not None
        for name, weight in weights.items():
            weight -= (update.learning_rate * self.alpha(update) * self.plane[name]).to(weight.dtype)

    def alpha(self, update: Update) -> float:
        """α of an update: constant, or after `alpha_warmup_steps` updates on a line from `steering_alpha` to
        `final_steering_alpha`, which it would reach one update after the last."""
        options = self.options
        start, wait = options.steering_alpha, options.alpha_warmup_steps
        if options.alpha_scheduler_type is None or update.index < wait:
            return start
        share = (update.index - wait) / (update.total - wait)
        return start + (options.final_steering_alpha - start) * share
