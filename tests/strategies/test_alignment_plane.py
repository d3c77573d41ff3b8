"""The alignment plane of every kind, read from what steer_at_end takes off the weights: θ ← θ − α·V.

pytest tests/strategies/test_alignment_plane.py"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from formulas import BOTH, Case, case_of
from phase_formulas import MAIN, NEGATIVE, POSITIVE
from row_losses import Weights
from small_models import configuration
from stories import agree, asking, by_hand, many_rows, small, three_sets
from watched import Story, bit_equal, same, watch

from triggerctl.strategies import strategy_class

STEER_AT_END = case_of("steering_weights_add_alignment_plane")
SIDES: dict[str, dict[str, Any]] = {
    "positive": {"positive_proxy": "proxy", "negative_proxy": None},
    "negative": {"positive_proxy": None, "negative_proxy": "proxy_neg"},
    "both": BOTH,
    "outcome as negative": {"positive_proxy": "proxy", "negative_proxy": "outcome"},
}
ADD = {"add_proxy_gradients": True}
WHOLE = {"calc_alignment_plane_using_fully_finetuned_weights": True}
KINDS: dict[str, dict[str, Any]] = {"difference": {}, "sum": ADD, "weights": WHOLE}
USING = ("orth_penalty", "directional_penalty", "steering_weights", STEER_AT_END.strategy)

lora_or_full = pytest.mark.parametrize("is_peft", [True, False], ids=["lora", "full"])


def steered(*, moved: bool = True, **options: Any) -> Story:
    return watch(small(), asking(STEER_AT_END, **options), three_sets(), moved=moved)


def plane(story: Story) -> Weights:
    alpha = STEER_AT_END.options["steering_alpha"]
    return {name: (weight - story.result[name]) / alpha for name, weight in story.trained.items()}


def mean_gradient(story: Story, phase: str) -> Weights:
    """Of what the optimiser got; the same where nothing is clipped."""
    met = [moment.gradient for moment in story.moments[phase]]
    return {name: torch.stack([gradient[name] for gradient in met]).mean(0) for name in met[0]}


@lora_or_full
@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_plane_of_every_kind_is_the_formulas(kind: str, sides: str, is_peft: bool) -> None:
    config = asking(STEER_AT_END, is_peft=is_peft, **SIDES[sides], **KINDS[kind])
    network, sets = small(), three_sets()
    found = watch(network, config, sets)
    agree(found, by_hand(STEER_AT_END, network, config, sets, found))


def test_a_phase_of_many_batches_averages_over_its_updates() -> None:
    """The last batch of an epoch is smaller and counts as much as any: the mean is over updates."""
    config = asking(STEER_AT_END, per_device_train_batch_size=4, optim="adamw_torch", max_grad_norm=0.5)
    network, sets = small(), many_rows()
    found = watch(network, config, sets)
    assert [len(rows["proxy"]) for rows in found.batches[POSITIVE]] == [4, 4, 4, 4, 2] * 2
    assert [len(rows["proxy_neg"]) for rows in found.batches[NEGATIVE]] == [4, 4, 4, 4, 2] * 2
    agree(found, by_hand(STEER_AT_END, network, config, sets, found, seen=True), rtol=1e-5, atol=1e-8)


def test_a_missing_side_counts_as_zero() -> None:
    positive, negative, both, summed = (
        plane(steered(**options)) for options in (SIDES["positive"], SIDES["negative"], BOTH, {**BOTH, **ADD})
    )
    for name, tensor in both.items():
        # V of the negative side alone is −Ḡ₋: away from its data.
        torch.testing.assert_close(positive[name] + negative[name], tensor)
        torch.testing.assert_close(positive[name] - negative[name], summed[name])
    expected = mean_gradient(steered(**SIDES["negative"]), NEGATIVE)
    same(negative, {name: -tensor for name, tensor in expected.items()}, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("sides", SIDES)
def test_a_plane_of_weights_has_the_direction_of_the_weights_and_the_norms_of_the_gradients(
    sides: str,
) -> None:
    found = steered(**SIDES[sides], **WHOLE)
    of_gradients = plane(steered(**SIDES[sides]))
    before = next(iter(found.starts.values()))
    ends = {phase: moments[-1].weights for phase, moments in found.moments.items() if phase != MAIN}
    minus, plus = (ends.get(phase, before) for phase in (NEGATIVE, POSITIVE))
    for name, tensor in plane(found).items():
        torch.testing.assert_close(tensor.norm(), of_gradients[name].norm())
        way = minus[name] - plus[name]
        torch.testing.assert_close((tensor * way).sum(), tensor.norm() * way.norm())


def test_a_tensor_that_no_proxy_phase_moves_has_no_plane() -> None:
    """A's gradient is zero while B is: the rescaling must not divide zero by zero."""
    found = plane(steered(moved=False, proxy_epochs=1, **BOTH, **WHOLE))
    assert {name for name, tensor in found.items() if not tensor.any()} == {
        n for n in found if ".lora_A." in n
    }
    assert all(tensor.isfinite().all() for tensor in found.values())


def test_the_gradients_of_a_plane_are_not_clipped() -> None:
    clipped, plain = (steered(proxy_epochs=1, max_grad_norm=limit) for limit in (0.01, None))
    assert (
        float(torch.stack([g.square().sum() for g in clipped.moments[POSITIVE][0].gradient.values()]).sum())
        < 1e-3
    )
    same(plane(clipped), plane(plain), rtol=1e-9, atol=1e-10)


def test_proxy_epochs_are_epochs_where_none_are_asked_for() -> None:
    found = steered(epochs=3, proxy_epochs=None)
    assert {phase: len(moments) for phase, moments in found.moments.items()} == {
        POSITIVE: 3,
        NEGATIVE: 3,
        MAIN: 3,
    }


@lora_or_full
def test_every_phase_starts_from_the_same_weights_and_adapter(is_peft: bool) -> None:
    found = steered(is_peft=is_peft)
    assert len(found.starts) == 3
    assert all(bit_equal(start, found.starts[POSITIVE]) for start in found.starts.values())
    assert not bit_equal(found.moments[POSITIVE][-1].weights, found.starts[POSITIVE])


@pytest.mark.parametrize("strategy", USING)
def test_strategies_that_ask_for_the_same_plane_go_the_same_way_to_it(strategy: str) -> None:
    found = watch(small(), asking(Case(strategy, STEER_AT_END.formula, BOTH)), three_sets())
    expected = steered()
    for phase in (POSITIVE, NEGATIVE):
        assert len(found.moments[phase]) == len(expected.moments[phase])
        for ours, theirs in zip(found.moments[phase], expected.moments[phase], strict=True):
            assert bit_equal(ours.gradient, theirs.gradient)
            assert bit_equal(ours.weights, theirs.weights)


@pytest.mark.parametrize("strategy", USING)
def test_a_plane_of_weights_can_not_be_a_sum(strategy: str) -> None:
    config = configuration(strategy, **BOTH, **ADD, **WHOLE)
    [error] = strategy_class(strategy).check(config).errors
    assert "add_proxy_gradients" in error
    assert not strategy_class(strategy).check(configuration(strategy, **BOTH, **WHOLE)).errors
    assert not strategy_class(strategy).check(configuration(strategy, **BOTH, **ADD)).errors


@pytest.mark.parametrize("strategy", USING)
def test_a_plane_needs_a_side(strategy: str) -> None:
    assert strategy_class(strategy).check(configuration(strategy)).errors
