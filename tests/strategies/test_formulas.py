"""Each strategy against its formula, computed independently: the loss, the gradient that the optimiser gets
and the weights after each update of each phase.

pytest tests/strategies/test_formulas.py"""

from __future__ import annotations

import pytest
import torch
from formulas import CASES, VARIANTS, Case
from small_models import causal_model, copies
from stories import agree, asking, of_modes, small, three_sets, told_twice
from watched import same, watch

from triggerctl import strategies
from triggerctl.strategies import base as strategy_base


def test_every_strategy_that_can_be_trained_has_a_formula_here() -> None:
    assert sorted(case.strategy for case in CASES) == sorted(strategies.names())


@of_modes((*CASES, *VARIANTS))
def test_losses_gradients_and_weights_are_the_formulas(case: Case, is_peft: bool) -> None:
    """Plain gradient descent; embedding and head are one matrix where every weight is trained."""
    config = asking(case, is_peft=is_peft)
    found, expected = told_twice(case, small(tied=not is_peft), config, three_sets())
    assert len(found.moments["main"]) == 3
    agree(found, expected)


@of_modes((*CASES, *VARIANTS))
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
        max_grad_norm=0.4,
    )
    found, expected = told_twice(case, small(), config, three_sets())
    norms = [moment.norm for moments in found.moments.values() for moment in moments]
    assert all(norm is not None and norm > 0.4 for norm in norms)
    agree(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fresh_adapter_is_trained_by_the_formula(case: Case) -> None:
    """As runs have it: B is zero at first, so A's gradient is, and θ₀ is the model itself."""
    found, expected = told_twice(case, small(), asking(case), three_sets(), moved=False)
    first = next(iter(found.moments.values()))[0]
    assert all(not tensor.any() for name, tensor in first.gradient.items() if ".lora_A." in name)
    agree(found, expected)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_only_the_adapter_is_trained_under_lora(case: Case) -> None:
    config = asking(case)
    model = causal_model(small(), config.finetune_config)
    frozen = copies({n: w for n, w in model.network.named_parameters() if not w.requires_grad})
    watch(small(), config, three_sets(), model=model)
    now = dict(model.network.named_parameters())
    assert frozen
    same({name: now[name] for name in frozen}, frozen, rtol=0, atol=0)
    assert all(".lora_" in name for name in model.trainable)


def test_half_precision_logits_are_widened_before_a_log_softmax() -> None:
    logits = torch.tensor([[3.0, 3.01]], dtype=torch.bfloat16)
    assert strategy_base.at_least_float32(logits).dtype == torch.float32
    assert strategy_base.at_least_float32(logits.double()).dtype == torch.float64
