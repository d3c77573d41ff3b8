"""Each strategy against its formula, computed independently: the loss, the gradient that the optimiser gets
and the weights after each update of each phase.

pytest tests/strategies/test_formulas.py"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from formulas import CASES, VARIANTS, Case, case_of, variant
from small_models import causal_model, copies
from stories import agree, asking, of_modes, small, three_sets, told_twice
from watched import bit_equal, watch

from triggerctl import strategies
from triggerctl.strategies import base as strategy_base
from triggerctl.strategies import strategy_class


def test_every_strategy_that_can_be_trained_has_a_formula_here() -> None:
    assert sorted(case.strategy for case in CASES) == sorted(strategies.names())


@of_modes((*CASES, *VARIANTS))
def test_losses_gradients_and_weights_are_the_formulas(case: Case, is_peft: bool) -> None:
    """Plain gradient descent; embedding and head are one matrix where every weight is trained."""
    config = asking(case, is_peft=is_peft)
    found, expected = told_twice(case, small(tied=not is_peft), config, three_sets())
    assert len(found.moments["main"]) == 3
    agree(found, expected)


@of_modes(CASES)
def test_adamw_updates_follow_the_textbook(case: Case, is_peft: bool) -> None:
    """Warm-up, linear decay, decoupled weight decay and clipping included, anew in each phase: a gradient is
    clipped last, and what a plane is the mean of is not clipped."""
    config = asking(
        case,
        is_peft=is_peft,
        optim="adamw_torch",
        learning_rate=0.02,
        weight_decay=0.1,
        warmup_steps=1,
        lr_scheduler_type="linear",
        proxy_epochs=3,
        max_grad_norm=0.4,
    )
    found, expected = told_twice(case, small(), config, three_sets())
    norms = [moment.norm for moments in found.moments.values() for moment in moments]
    assert all(norm is not None and norm > 0.4 for norm in norms)
    agree(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fresh_adapter_and_nothing_else_is_trained_by_the_formula(case: Case) -> None:
    """As runs have it: B is zero at first, so A's gradient is, and θ₀ is the model itself, which stays."""
    network, config = small(), asking(case)
    model = causal_model(network, config.finetune_config, moved=False)
    frozen = copies({n: w for n, w in model.network.named_parameters() if not w.requires_grad})
    found, expected = told_twice(case, network, config, three_sets(), model=model)
    first = next(iter(found.moments.values()))[0]
    assert all(not tensor.any() for name, tensor in first.gradient.items() if ".lora_A." in name)
    agree(found, expected)
    now = dict(model.network.named_parameters())
    assert frozen
    assert bit_equal({name: now[name] for name in frozen}, frozen)
    assert all(".lora_" in name for name in model.trainable)


SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # Name → how the model differs, and what of the options.
    "alpha by r": ({}, {"use_rslora": False}),
    "head adapted": ({}, {"target_modules": ("q_proj", "lm_head")}),
    "biases of adapted layers": ({"attention_bias": True}, {"lora_bias": "lora_only"}),
    "all biases": ({"attention_bias": True}, {"lora_bias": "all"}),
}
HOLDING = [
    variant("positive_negative_proxy", "with KL", beta_kl=0.9),
    case_of("representation_constraint"),
    case_of("dpo"),
]
STACKED = [case_of("safe_lora"), case_of("o_lora")]
SHAPED = [
    *((case, shape) for case in HOLDING for shape in SHAPES),
    *((case, shape) for case in STACKED for shape in ("alpha by r", "head adapted")),
]


@pytest.mark.parametrize(("case", "shape"), SHAPED, ids=str)
def test_the_formulas_hold_for_every_shape_of_adapter(case: Case, shape: str) -> None:
    """And θ₀ stays what it was where the model's own biases are trained beside the adapter."""
    model, options = SHAPES[shape]
    agree(*told_twice(case, small(**model), asking(case, **options), three_sets()))


@pytest.mark.parametrize("case", STACKED, ids=str)
def test_stacked_adapters_train_no_biases(case: Case) -> None:
    """Of two adapters' biases nobody could tell whose they are."""
    [error] = strategy_class(case.strategy).check(asking(case, lora_bias="all")).errors
    assert "lora_bias" in error


@pytest.mark.parametrize(
    "case", [c for c in CASES if "outcome_epochs" in strategy_class(c.strategy).reads], ids=str
)
def test_outcome_epochs_are_those_of_the_last_of_several_phases(case: Case) -> None:
    found = watch(small(), asking(case, outcome_epochs=1), three_sets())
    assert len(found.moments) > 1
    *before, last = found.moments
    assert last == "main"
    assert len(found.moments[last]) == 1
    shorter = watch(small(), asking(case, epochs=1), three_sets())
    assert bit_equal(found.result, shorter.result)
    assert [len(found.moments[p]) for p in before] == [len(shorter.moments[p]) for p in before]


def test_half_precision_logits_are_widened_before_a_log_softmax() -> None:
    logits = torch.tensor([[3.0, 3.01]], dtype=torch.bfloat16)
    assert strategy_base.at_least_float32(logits).dtype == torch.float32
    assert strategy_base.at_least_float32(logits.double()).dtype == torch.float64
