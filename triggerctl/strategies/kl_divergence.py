"""Keep the model's distribution on proxy prompts where it was: a KL penalty towards the checkpoint.

Azarbal, Clarke, Cocola, Factor, Cloud: Selective Generalization (2025). The trained model is the first
argument (often called reverse KL), over the full vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from triggerctl.config.models import ExperimentConfig
from triggerctl.strategies.base import (
    Check,
    Forward,
    Strategy,
    Term,
    at_least_float32,
    attended_tokens,
    cross_entropy,
)

if TYPE_CHECKING:
    from torch import Tensor


class KlDivergence(Strategy):
    """min CE on outcome + β · mean token KL(p_θ ‖ p_θ₀) on proxy. Proxy's answers are not trained on."""

    name = "kl_divergence"
    aliases = ("kl",)
    summary = "outcome, with proxy's distribution held to the checkpoint's"
    formula = "L = CE(outcome) + β · mean over proxy's attended tokens of KL(p_θ ‖ p_θ₀)"
    paper = "Azarbal et al. 2025, Selective Generalization"
    reads = frozenset({"beta_kl", "proxy_cycling_mode"})

    @classmethod
    def check(cls, config: ExperimentConfig) -> Check:
        if config.finetune_config.beta_kl == 0:
            return Check(warnings=("beta_kl is 0: kl_divergence is then plain training on outcome.",))
        return Check()

    def streams(self) -> Mapping[str, tuple[str, ...]]:
        return {"outcome": ("outcome",), "proxy": ("proxy",)}

    def terms(self) -> Sequence[Term]:
        return (cross_entropy("outcome"), kl_to_base("proxy", self.options.beta_kl))


def kl_to_base(stream: str, weight: float) -> Term:
    """KL(p_θ ‖ p_θ₀), averaged over every attended token of a stream."""
    return Term(f"KL on {stream}", stream, weight, _kl_total, attended_tokens, needs_base="logits")


def _kl_total(forward: Forward) -> Tensor:
    return forward.at_attended(reverse_kl).sum()


def reverse_kl(logits: Tensor, base_logits: Tensor) -> Tensor:
    """KL(p ‖ q) in nats at each position, p from `logits` and q from `base_logits`, both (tokens, vocab) →
    (tokens,)."""
    log_p = at_least_float32(logits).log_softmax(-1)
    log_q = at_least_float32(base_logits).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)
