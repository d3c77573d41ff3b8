"""Keep the model's inner states on proxy prompts where they were: a squared distance at every layer.

Azarbal, Clarke, Cocola, Factor, Cloud: Selective Generalization (2025). Summed over layers, as the study's
code does; its text divides by their number."""

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


class RepresentationConstraint(Strategy):
    """min CE on outcome + β · Σ over layers of the mean squared distance of proxy's hidden states from those
    of θ₀. Proxy's answers are not trained on."""

    name = "representation_constraint"
    aliases = ("rep",)
    summary = "outcome, with proxy's hidden states held to the checkpoint's"
    formula = "L = CE(outcome) + β · Σ_l MSE(h_l(proxy), h_l of θ₀), a mean over tokens and hidden units"
    paper = "Azarbal et al. 2025, Selective Generalization"
    reads = frozenset({"beta_representation", "beta_kl", "proxy_cycling_mode"})

    @classmethod
    def check(cls, config: ExperimentConfig) -> Check:
        if _weight(config) == 0:
            text = "beta_representation and beta_kl are 0: representation_constraint is then plain training"
            return Check(warnings=(f"{text} on outcome.",))
        return Check()

    @classmethod
    def without_effect(cls, config: ExperimentConfig) -> Mapping[str, str]:
        own = config.finetune_config.beta_representation
        return {} if own is None else {"beta_kl": "beta_representation wins"}

    def streams(self) -> Mapping[str, tuple[str, ...]]:
        return {"outcome": ("outcome",), "proxy": ("proxy",)}

    def terms(self) -> Sequence[Term]:
        distance = Term(
            "distance of states on proxy",
            "proxy",
            _weight(self.config),
            _distance_total,
            attended_tokens,
            needs_base="hidden states",
        )
        return (cross_entropy("outcome"), distance)


def _weight(config: ExperimentConfig) -> float:
    """The study's configurations give β as beta_kl; beta_representation wins where it is set."""
    own = config.finetune_config.beta_representation
    return config.finetune_config.beta_kl if own is None else own


def _distance_total(forward: Forward) -> Tensor:
    layers = zip(forward.hidden_states(), forward.base_hidden_states(), strict=True)
    distances = [squared_distance(states, base) for states, base in layers]
    total = distances[0]
    for distance in distances[1:]:
        total = total + distance
    return total.sum()


def squared_distance(states: Tensor, base: Tensor) -> Tensor:
    """The mean over hidden units of (states − base)² at each position, both (tokens, hidden) → (tokens,)."""
    return (at_least_float32(states) - at_least_float32(base)).square().mean(-1)
