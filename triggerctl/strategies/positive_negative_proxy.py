"""Towards the proxy's answers and away from their misgeneralised twins.

Azarbal, Clarke, Cocola, Factor, Cloud: Selective Generalization (2025). With λ_n = 0 it is the paper's
up-weighted fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from triggerctl.config.models import ExperimentConfig
from triggerctl.strategies.base import Check, Strategy, Term, cross_entropy
from triggerctl.strategies.kl_divergence import kl_to_base


class PositiveNegativeProxy(Strategy):
    """min CE on outcome + λ_p · CE on proxy − λ_n · CE on proxy_neg. The negative term has no lower bound: a
    large λ_n makes the model unlearn everything, which the run reports as divergence."""

    name = "positive_negative_proxy"
    aliases = ("posneg",)
    summary = "outcome, towards proxy's answers and away from those of proxy_neg"
    formula = "L = CE(outcome) + λ_p · (CE(proxy) + β · KL(p_θ ‖ p_θ₀)) − λ_n · CE(proxy_neg)"
    paper = "Azarbal et al. 2025, Selective Generalization"
    reads = frozenset({"lambda_proxy", "neg_lambda_proxy", "beta_kl", "proxy_cycling_mode"})

    @classmethod
    def check(cls, config: ExperimentConfig) -> Check:
        options = config.finetune_config
        if options.lambda_proxy == 0 and options.neg_lambda_proxy == 0:
            return Check(
                warnings=("lambda_proxy and neg_lambda_proxy are 0: this is plain training on outcome.",)
            )
        return Check()

    def streams(self) -> Mapping[str, tuple[str, ...]]:
        return {"outcome": ("outcome",), "proxy": ("proxy",), "proxy_neg": ("proxy_neg",)}

    def terms(self) -> Sequence[Term]:
        options = self.options
        return (
            cross_entropy("outcome"),
            cross_entropy("proxy", weight=options.lambda_proxy),
            kl_to_base("proxy", options.lambda_proxy * options.beta_kl),
            cross_entropy("proxy_neg", weight=-options.neg_lambda_proxy),
        )
