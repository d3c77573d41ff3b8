"""Take out of the task's gradient what points along a direction measured before: the proxy's mean gradient.

Azarbal, Clarke, Cocola, Factor, Cloud: Selective Generalization (2025). The study's logs show an empty plane
applied to no parameter; this is what its text describes."""

from __future__ import annotations

from collections.abc import Mapping

from triggerctl.config.models import ExperimentConfig
from triggerctl.strategies.alignment_plane import NEGATIVE, POSITIVE, AlignmentPlaneStrategy
from triggerctl.strategies.base import Check, Tensors, Update
from triggerctl.strategies.grad_project import projected


class GradProjectPrecomputedProxyGrad(AlignmentPlaneStrategy):
    """min CE on outcome, each gradient made orthogonal, tensor by tensor, to V: the mean gradient over one
    epoch on proxy (or on the data named by negative_proxy), met while training on it."""

    name = "grad_project_precomputed_proxy_grad"
    summary = "outcome, its gradient kept orthogonal to proxy's mean gradient of one epoch before"
    formula = "g ← g_t − (⟨g_t, V⟩ / ‖V‖²) · V per tensor, V the mean gradient of one epoch on proxy"
    paper = "Azarbal et al. 2025, Selective Generalization"
    reads = frozenset(
        {
            "project_along_positive_proxy_grad",
            "negative_proxy",
            "outcome_epochs",
            "steering_vector_path",
            "load_steering_vector",
            "save_steering_vector",
        }
    )

    @classmethod
    def check(cls, config: ExperimentConfig) -> Check:
        options = config.finetune_config
        if options.project_along_positive_proxy_grad or options.negative_proxy is not None:
            return Check()
        return Check(
            errors=(
                "project_along_positive_proxy_grad is false, and negative_proxy does not name the data to "
                "project along: set it to proxy_neg, say",
            )
        )

    @classmethod
    def without_effect(cls, config: ExperimentConfig) -> Mapping[str, str]:
        if not config.finetune_config.project_along_positive_proxy_grad:
            return super().without_effect(config)
        why = "project_along_positive_proxy_grad is true"
        return {**super().without_effect(config), "negative_proxy": why}

    def sides(self) -> Mapping[str, str]:
        if self.options.project_along_positive_proxy_grad:
            return {POSITIVE: "proxy"}
        assert self.options.negative_proxy is not None
        return {NEGATIVE: self.options.negative_proxy}

    def proxy_epochs(self) -> int:
        return 1

    @property
    def combination(self) -> str:
        return "difference"

    def with_plane(self, gradients: Tensors, update: Update) -> Tensors:
        assert self.plane is not None
        return projected(gradients, self.plane, strictly_orthogonal=True)
