"""Every strategy there is, with its formula by hand: the matrix that the tests of this folder run over.

Used by tests/strategies: pytest tests/strategies"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import phase_formulas as phases
from by_hand import Hand
from row_losses import Model, Weights, cross_entropy, drift, preference, reverse_kl
from torch import Tensor
from watched import Batch

from triggerctl.strategies import strategy_class

Formula = Callable[[Hand], None]
"""Trains by hand, and leaves the story."""


def of_one_loss(loss: Callable[[Hand, Model, Batch], Tensor]) -> Formula:
    """A training of one phase by a loss over rows."""

    def formula(hand: Hand) -> None:
        hand.train("main", hand.start, lambda m, rows, w: loss(hand, m, rows), hand.options.epochs)

    return formula


@of_one_loss
def naive(hand: Hand, m: Model, rows: Batch) -> Tensor:
    return cross_entropy(m, [*rows["outcome"], *rows["proxy"]])


@of_one_loss
def outcome_only(hand: Hand, m: Model, rows: Batch) -> Tensor:
    return cross_entropy(m, rows["outcome"])


@of_one_loss
def kl_divergence(hand: Hand, m: Model, rows: Batch) -> Tensor:
    held = reverse_kl(m, hand.base, rows["proxy"])
    return cross_entropy(m, rows["outcome"]) + hand.options.beta_kl * held


@of_one_loss
def positive_negative_proxy(hand: Hand, m: Model, rows: Batch) -> Tensor:
    options = hand.options
    wanted = cross_entropy(m, rows["proxy"]) + options.beta_kl * reverse_kl(m, hand.base, rows["proxy"])
    unwanted = cross_entropy(m, rows["proxy_neg"])
    task = cross_entropy(m, rows["outcome"])
    return task + options.lambda_proxy * wanted - options.neg_lambda_proxy * unwanted


@of_one_loss
def representation_constraint(hand: Hand, m: Model, rows: Batch) -> Tensor:
    asked = hand.options.beta_representation
    beta = hand.options.beta_kl if asked is None else asked
    return cross_entropy(m, rows["outcome"]) + beta * drift(m, hand.base, rows["proxy"])


@of_one_loss
def dpo(hand: Hand, m: Model, rows: Batch) -> Tensor:
    options, normalised = hand.options, hand.options.dpo_length_normalized
    pairs = preference(
        m, hand.base, rows["proxy"], rows["proxy_neg"], beta=options.beta, normalised=normalised
    )
    return cross_entropy(m, rows["outcome"]) + options.lambda_dpo * pairs


def grad_project(hand: Hand) -> None:
    options = hand.options
    sign, data = (1, "proxy") if options.project_along_positive_proxy_grad else (-1, "proxy_neg")

    def slope(weights: Weights, batch: Batch, k: int) -> tuple[float, Weights]:
        loss, task = phases.outcome(hand, weights, batch)
        _, other = hand.gradient(lambda m, rows, w: sign * cross_entropy(m, rows[data]), weights, batch)
        return loss, phases.without(task, other, strictly=options.project_strictly_orthogonal)

    hand.descend("main", hand.start, slope, options.epochs)


@dataclass(frozen=True)
class Case:
    """One strategy under test. `options` are its own; `neighbour`: what it becomes with `zeroed` options, bit
    for bit. `variant` tells it from others of the same strategy."""

    strategy: str
    formula: Formula
    options: Mapping[str, Any] = field(default_factory=dict)
    neighbour: str | None = None
    zeroed: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.strategy} {self.variant}".strip()

    @property
    def modes(self) -> tuple[bool, ...]:
        """Values of is_peft under which the method means something."""
        return (True,) if strategy_class(self.strategy).lora_only else (True, False)


BOTH = {"positive_proxy": "proxy", "negative_proxy": "proxy_neg"}
"""The sides of a plane."""

PENALTY = {**BOTH, "lambda_1": 0.6}
STEERED = {**BOTH, "steering_alpha": 0.8}
PROJECTED = {"safe_lora_type": "number", "safe_lora_num_proj_layers": 5}

CASES = (
    Case("naive", naive),
    Case("outcome_only", outcome_only),
    Case(
        "positive_negative_proxy",
        positive_negative_proxy,
        {"lambda_proxy": 0.7, "neg_lambda_proxy": 0.2},
        "outcome_only",
        {"lambda_proxy": 0.0, "neg_lambda_proxy": 0.0},
    ),
    Case("kl_divergence", kl_divergence, {"beta_kl": 0.7}, "outcome_only", {"beta_kl": 0.0}),
    Case(
        "representation_constraint",
        representation_constraint,
        {"beta_kl": 0.3},
        "outcome_only",
        {"beta_kl": 0.0},
    ),
    Case("grad_project", grad_project),
    Case("grad_project_precomputed_proxy_grad", phases.grad_project_precomputed_proxy_grad),
    Case("orth_penalty", phases.orth_penalty, PENALTY, "outcome_only", {**BOTH, "lambda_1": 0.0}),
    Case(
        "directional_penalty", phases.directional_penalty, PENALTY, "outcome_only", {**BOTH, "lambda_1": 0.0}
    ),
    Case(
        "steering_weights", phases.steering_weights, STEERED, "outcome_only", {**BOTH, "steering_alpha": 0.0}
    ),
    Case(
        "steering_weights_add_alignment_plane",
        phases.steering_weights_add_alignment_plane,
        STEERED,
        "outcome_only",
        {**BOTH, "steering_alpha": 0.0},
    ),
    Case("safe_lora", phases.safe_lora, PROJECTED),
    Case("dpo", dpo, {"lambda_dpo": 1.5, "beta": 0.4}, "outcome_only", {"lambda_dpo": 0.0}),
    Case("o_lora", phases.o_lora, {"lambda_1": 0.6}),
)
"""Every strategy there is. A new one joins with a line and its formula."""


def case_of(strategy: str) -> Case:
    return next(case for case in CASES if case.strategy == strategy)


def variant(strategy: str, text: str, **options: Any) -> Case:
    """The strategy's case with other options."""
    case = case_of(strategy)
    return Case(strategy, case.formula, {**case.options, **options}, variant=text)


VARIANTS = (
    variant("positive_negative_proxy", "up-weighted", neg_lambda_proxy=0.0),
    variant("positive_negative_proxy", "with KL", beta_kl=0.9),
    variant("representation_constraint", "own beta wins", beta_representation=0.5, beta_kl=7.0),
    variant("representation_constraint", "own beta zero", beta_representation=0.0, beta_kl=7.0),
    variant("grad_project", "on conflict", project_strictly_orthogonal=False),
    variant("grad_project", "negative", project_along_positive_proxy_grad=False),
    variant(
        "grad_project",
        "negative on conflict",
        project_along_positive_proxy_grad=False,
        project_strictly_orthogonal=False,
    ),
    variant(
        "grad_project_precomputed_proxy_grad",
        "negative",
        project_along_positive_proxy_grad=False,
        negative_proxy="proxy_neg",
    ),
    variant("steering_weights", "direct", direct_steering=True),
    variant("steering_weights", "linear", alpha_scheduler_type="linear", alpha_warmup_steps=1),
    variant(
        "steering_weights",
        "direct linear",
        direct_steering=True,
        alpha_scheduler_type="linear",
        alpha_warmup_steps=1,
        final_steering_alpha=-0.3,
    ),
    variant("safe_lora", "threshold", safe_lora_type="threshold", safe_lora_threshold=0.5),
    variant(
        "safe_lora",
        "sweep",
        safe_lora_type="threshold",
        safe_lora_threshold=None,
        safe_lora_sweep_thresholds=(0.2, 0.5, 0.8),
    ),
    variant("dpo", "sum", dpo_length_normalized=False),
)
"""What more the strategies can be asked for."""
