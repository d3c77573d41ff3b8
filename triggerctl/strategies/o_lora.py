"""Learn the task in a subspace orthogonal to that of the alignment data.

Wang, Chen, Ge, Xia, Bao, Zheng, Zhang, Gui, Huang: Orthogonal Subspace Learning (2023, arXiv:2310.14152). The
absolute value is the authors' code; their paper squares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from triggerctl.config.models import ExperimentConfig
from triggerctl.strategies.alignment_plane import POSITIVE
from triggerctl.strategies.base import (
    MAIN,
    NO_BIAS,
    Check,
    Penalty,
    Phase,
    Strategy,
    Tensors,
    Term,
    cross_entropy,
    proxy_phase,
)

if TYPE_CHECKING:
    from torch import Tensor


class OLora(Strategy):
    """min CE on proxy by a first adapter, which is then frozen and stays active; then CE on outcome by a
    second, + λ₁ · Σ over adapted matrices of Σ_ij |A_proxy·A_outᵀ|_ij."""

    name = "o_lora"
    summary = "outcome by a second adapter, orthogonal to a first one trained on proxy"
    formula = "L = CE(outcome) + λ₁ · Σ Σ_ij |A_proxy · A_outᵀ|_ij, proxy's adapter frozen and active"
    paper = "Wang et al. 2023, arXiv:2310.14152"
    reads = frozenset({"lambda_1", "proxy_epochs", "outcome_epochs"})
    lora_only = True

    def __init__(self, config: ExperimentConfig) -> None:
        super().__init__(config)
        self._first: Tensors = {}

    @classmethod
    def check(cls, config: ExperimentConfig) -> Check:
        errors = []
        if config.finetune_config.lora_bias != "none":
            errors.append(NO_BIAS.format(name=cls.name))
        if config.finetune_config.proxy_epochs == 0:
            errors.append("proxy_epochs is 0: o_lora needs an adapter trained on proxy first")
        return Check(errors=tuple(errors))

    def streams(self) -> Mapping[str, tuple[str, ...]]:
        return {"outcome": ("outcome",)}

    def terms(self) -> Sequence[Term]:
        return (cross_entropy("outcome"),)

    def phases(self) -> Sequence[Phase]:
        overlap = Penalty("overlap of adapters", self.options.lambda_1, self._overlap)
        return (
            proxy_phase(POSITIVE, "proxy", self.options.epochs_on_proxy),
            Phase(
                MAIN,
                self.streams(),
                tuple(self.terms()),
                self.options.epochs_on_outcome,
                penalties=(overlap,),
                starts_from="stacked",
            ),
        )

    def after_phase(self, phase: Phase, weights: Tensors) -> None:
        if phase.name == POSITIVE:
            self._first = {n: weight.detach().clone() for n, weight in weights.items() if ".lora_A." in n}

    def _overlap(self, weights: Tensors) -> Tensor:
        # In the weights' order: after a resume the first adapter's may be another, and with it the rounding.
        pairs = ((self._first[name], down) for name, down in weights.items() if name in self._first)
        overlaps = [(first @ down.T).abs().sum() for first, down in pairs]
        return sum(overlaps[1:], start=overlaps[0])

    def state(self) -> Tensors:
        return dict(self._first)

    def load_state(self, state: Tensors) -> None:
        self._first = dict(state)
