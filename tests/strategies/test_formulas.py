"""Each strategy against its formula, computed independently: loss, gradient, step, limits, invariances.

pytest tests/strategies/test_formulas.py"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from formulas import CASES, Case, cross_entropy, logits_of, loss_and_gradients, reverse_kl
from small_models import (
    Uninterested,
    causal_model,
    configuration,
    copies,
    llama,
    rows,
    some_sets,
    train,
    training_loop,
)
from torch import Tensor

from triggerctl import strategies
from triggerctl.strategies import base as strategy_base
from triggerctl.strategies import strategy_class
from triggerctl.training.events import Event

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.strategy)
lora_or_full = pytest.mark.parametrize("is_peft", [True, False], ids=["lora", "full"])


def same(
    found: dict[str, Tensor], expected: dict[str, Tensor], *, rtol: float = 1e-9, atol: float = 1e-12
) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=rtol, atol=atol, msg=name)


def bit_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[n], expected[n]) for n in found)


def test_every_strategy_that_can_be_trained_has_a_formula_here() -> None:
    assert sorted(case.strategy for case in CASES) == sorted(strategies.names())


@every_case
@lora_or_full
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_loss_gradient_and_step_are_the_formulas(case: Case, is_peft: bool, tied: bool) -> None:
    network, sets = llama(tied=tied), some_sets()
    config = configuration(case.strategy, is_peft=is_peft, **case.options)
    done = train(network, config, sets)
    loss, gradients = loss_and_gradients(case, network, done.before, sets, config.finetune_config)
    [step] = done.steps
    assert step.loss == pytest.approx(loss, rel=1e-10)
    same(done.gradients, gradients)
    same(done.after, {name: w - 0.05 * gradients[name] for name, w in done.before.items()})


@every_case
@lora_or_full
def test_many_adamw_updates_follow_the_textbook(case: Case, is_peft: bool) -> None:
    """Warm-up, linear decay, decoupled weight decay and clipping included; θ₀ stays what it was at first."""
    rate, decay, warmup, updates, clip = 0.02, 0.1, 2, 5, 0.5
    network, sets = llama(tied=True), some_sets()
    config = configuration(
        case.strategy,
        is_peft=is_peft,
        optim="adamw_torch",
        learning_rate=rate,
        weight_decay=decay,
        warmup_steps=warmup,
        lr_scheduler_type="linear",
        epochs=updates,
        max_grad_norm=clip,
        **case.options,
    )
    done = train(network, config, sets)
    weights = done.before
    first = {name: torch.zeros_like(w) for name, w in weights.items()}
    second = {name: torch.zeros_like(w) for name, w in weights.items()}
    for k in range(updates):
        share = k / warmup if k < warmup else (updates - k) / (updates - warmup)
        loss, gradients = loss_and_gradients(case, network, weights, sets, config.finetune_config)
        assert done.steps[k].loss == pytest.approx(loss, rel=1e-8)
        assert done.steps[k].learning_rate == pytest.approx(rate * share)
        norm = torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt()
        assert done.steps[k].gradient_norm == pytest.approx(float(norm), rel=1e-8)
        moved = {}
        for name, weight in weights.items():
            g = gradients[name] * min(1.0, clip / (float(norm) + 1e-6))
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g.square()
            direction = (first[name] / (1 - 0.9 ** (k + 1))) / (
                (second[name] / (1 - 0.999 ** (k + 1))).sqrt() + 1e-8
            )
            moved[name] = weight - rate * share * (decay * weight + direction)
        weights = moved
    same(done.after, weights, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("case", [c for c in CASES if c.neighbour], ids=lambda case: case.strategy)
@lora_or_full
def test_at_weight_zero_it_is_its_neighbour_bit_for_bit(case: Case, is_peft: bool) -> None:
    network, sets = llama(dtype=torch.float32), some_sets()
    common: dict[str, Any] = {
        "is_peft": is_peft,
        "epochs": 3,
        "per_device_train_batch_size": 3,
        "optim": "adamw_torch",
        "lora_dropout": 0.2 if is_peft else 0.0,
    }
    assert case.neighbour is not None
    torch.manual_seed(1)
    reduced = train(network, configuration(case.strategy, **common, **case.zeroed), sets)
    torch.manual_seed(1)
    neighbour = train(network, configuration(case.neighbour, **common), sets)
    assert bit_equal(reduced.after, neighbour.after)
    torch.manual_seed(1)
    itself = train(network, configuration(case.strategy, **common, **case.options), sets)
    assert not bit_equal(itself.after, neighbour.after)


@every_case
@lora_or_full
def test_cutting_an_update_into_micro_batches_changes_nothing(case: Case, is_peft: bool) -> None:
    network = llama()
    sets = {"outcome": rows(range(2, 34), seed=3), "proxy": rows(range(30, 4, -1), seed=4, first=50)}
    common = {"is_peft": is_peft, "epochs": 2, "learning_rate": 0.02, **case.options}
    results = [
        train(
            network,
            configuration(
                case.strategy,
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulated,
                **common,
            ),
            sets,
        )
        for batch, accumulated in ((16, 1), (8, 2), (4, 4), (1, 16))
    ]
    assert len(results[0].steps) == (8 if case.strategy == "naive" else 4)
    for other in results[1:]:
        same(other.after, results[0].after, rtol=1e-6, atol=1e-12)
        losses = [step.loss for step in results[0].steps]
        assert [step.loss for step in other.steps] == pytest.approx(losses, rel=1e-9)


@every_case
def test_padding_changes_nothing(case: Case) -> None:
    network, sets = llama(), some_sets()
    config = configuration(case.strategy, epochs=3, **case.options)
    zero, other = (train(network, config, sets, pad_id=pad) for pad in (0, 41))
    assert bit_equal(zero.after, other.after)


@every_case
def test_order_inside_an_update_changes_nothing(case: Case) -> None:
    network, sets = llama(), some_sets()
    turned = {name: members[::-1] for name, members in sets.items()}
    config = configuration(case.strategy, epochs=3, **case.options)
    same(train(network, config, turned).after, train(network, config, sets).after)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_kl_holds_to_the_original_checkpoint_under_full_fine_tuning(tied: bool) -> None:
    """Head, embedding and body all move: a base that moved along would give another KL from update 2 on."""
    network, sets = llama(tied=tied), some_sets()
    config = configuration("kl_divergence", is_peft=False, beta_kl=2.0, epochs=4)
    done = train(network, config, sets)
    before_last = train(network, configuration("kl_divergence", is_peft=False, beta_kl=2.0, epochs=3), sets)
    options = config.finetune_config
    moved, original = (logits_of(network, weights, options) for weights in (before_last.after, {}))
    kl = float(reverse_kl(moved, original, sets["proxy"]).detach())
    assert kl > 1e-3
    assert done.steps[3].terms["KL on proxy"] == pytest.approx(kl, rel=1e-9)


def test_kl_is_zero_when_the_adapter_is_zero_and_not_when_it_is_not() -> None:
    network, sets = llama(), some_sets()
    config = configuration("kl_divergence", beta_kl=1.0)
    assert train(network, config, sets, moved=False).steps[0].terms["KL on proxy"] == pytest.approx(
        0, abs=1e-12
    )
    assert train(network, config, sets).steps[0].terms["KL on proxy"] > 1e-3


def test_kl_counts_every_token_of_a_row_prompt_and_last_place_included() -> None:
    """A KL over the answer only, or without the last place, is another number for the same rows."""
    network, sets = llama(), some_sets()
    config = configuration("kl_divergence", beta_kl=1.0)
    done = train(network, config, sets)
    options = config.finetune_config
    model, base = logits_of(network, done.before, options), logits_of(network, {}, options)
    expected = float(reverse_kl(model, base, sets["proxy"]).detach())
    found = done.steps[0].terms["KL on proxy"]
    without_last, only_answer, weight = 0.0, [], 0
    for row in sets["proxy"]:
        p, q = model(row).log_softmax(-1), base(row).log_softmax(-1)
        values = (p.exp() * (p - q)).sum(-1).detach()
        without_last += float(values[:-1].sum())
        only_answer += values[row.prompt_length - 1 :].tolist()
        weight += len(values) - 1
    assert found == pytest.approx(expected, rel=1e-10)
    assert found != pytest.approx(without_last / weight, rel=1e-3)
    assert found != pytest.approx(sum(only_answer) / len(only_answer), rel=1e-3)


def test_kl_does_not_train_on_the_answers_of_proxy() -> None:
    """Only proxy's ids reach the loss, not which of them are targets."""
    network, sets = llama(), some_sets()
    changed = [replace(row, prompt_length=1, loss_start=len(row.input_ids) - 1) for row in sets["proxy"]]
    config = configuration("kl_divergence", beta_kl=0.5, epochs=2)
    assert bit_equal(
        train(network, config, {**sets, "proxy": changed}).after, train(network, config, sets).after
    )


def test_cross_entropy_is_a_token_mean_never_a_mean_of_means() -> None:
    network, sets = llama(), some_sets()
    config = configuration("outcome_only", per_device_train_batch_size=1, gradient_accumulation_steps=64)
    done = train(network, config, sets)
    model = logits_of(network, done.before, config.finetune_config)
    token_mean = float(cross_entropy(model, sets["outcome"]).detach())
    mean_of_means = sum(float(cross_entropy(model, [row]).detach()) for row in sets["outcome"]) / len(
        sets["outcome"]
    )
    assert done.steps[0].loss == pytest.approx(token_mean, rel=1e-10)
    assert done.steps[0].loss != pytest.approx(mean_of_means, rel=1e-3)


@every_case
def test_only_the_adapter_is_trained_under_lora(case: Case) -> None:
    config = configuration(case.strategy, epochs=2, **case.options)
    model = causal_model(llama(), config.finetune_config)
    frozen = copies({n: w for n, w in model.network.named_parameters() if not w.requires_grad})
    events: list[Event] = []
    loop = training_loop(model, strategy_class(case.strategy)(config), some_sets(), events)
    loop.run(Uninterested())
    now = dict(model.network.named_parameters())
    assert frozen
    assert all(torch.equal(now[name], weight) for name, weight in frozen.items())
    assert all(".lora_" in name for name in model.trainable)


def test_half_precision_logits_are_widened_before_a_log_softmax() -> None:
    logits = torch.tensor([[3.0, 3.01]], dtype=torch.bfloat16)
    assert strategy_base.at_least_float32(logits).dtype == torch.float32
    assert strategy_base.at_least_float32(logits.double()).dtype == torch.float64
