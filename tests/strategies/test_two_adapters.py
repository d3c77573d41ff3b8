"""Claims about safe_lora and o_lora: an adapter frozen, another on top of it, and what is projected last.

pytest tests/strategies/test_two_adapters.py"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from by_hand import Hand
from formulas import case_of, variant
from phase_formulas import MAIN, POSITIVE
from phase_formulas import cosines as cosines_of
from row_losses import Model, Weights, cross_entropy, matrices, scale
from small_models import causal_model, configuration
from stories import agree, asking, by_hand, many_rows, small, three_sets, told_twice
from watched import Story, bit_equal, same, watch

from triggerctl.config.models import ExperimentConfig
from triggerctl.strategies import strategy_class

BOTH_STRATEGIES = ("safe_lora", "o_lora")
stacked = pytest.mark.parametrize("strategy", BOTH_STRATEGIES)


def told(strategy: str, *, moved: bool = True, **options: Any) -> Story:
    config = asking(variant(strategy, "", **options))
    return watch(small(), config, three_sets(), moved=moved)


def safe(threshold: float | None = None, **options: Any) -> Story:
    kind = {"safe_lora_type": "threshold", "safe_lora_threshold": threshold} if threshold is not None else {}
    return told("safe_lora", **{**kind, **options})


def second_stage(found: Story, strategy: str) -> Hand:
    """A hand at the second stage: the first adapter, as it was left, is merged."""
    config = asking(case_of(strategy))
    hand = Hand(small(), config, three_sets(), found.starts)
    first = matrices(found.moments[POSITIVE][-1].weights)
    hand.under = {module: scale(config.finetune_config) * (b @ a) for module, (a, b) in first.items()}
    return hand


def projected(found: Story, ending: int = -1) -> set[str]:
    """The adapted matrices whose B an ending has changed."""
    _, end = found.endings[ending]
    changed = {name for name, weight in end.items() if not torch.equal(weight, found.trained[name])}
    assert all(".lora_B." in name for name in changed)
    return {name.partition(".lora_B.")[0] for name in changed}


# Both
# --------------------------------------------------------------------------------------------------------


@stacked
def test_the_second_stage_has_a_fresh_adapter_that_does_nothing_yet(strategy: str) -> None:
    found = told(strategy, moved=False)
    first, end, fresh = found.starts[POSITIVE], found.moments[POSITIVE][-1].weights, found.starts[MAIN]
    for module, (a, b) in matrices(fresh).items():
        assert not b.any()
        assert a.any()
        assert not torch.equal(a, matrices(first)[module][0])
        assert not torch.equal(a, matrices(end)[module][0])
    # Its loss is that of the merged model.
    merged = Model(small(), end, asking(case_of(strategy)).finetune_config)
    expected = float(cross_entropy(merged, three_sets()["outcome"]).detach())
    assert found.moments[MAIN][0].terms["cross-entropy on outcome"] == pytest.approx(expected, rel=1e-10)


@stacked
def test_the_fresh_adapter_depends_on_the_seed_alone(strategy: str) -> None:
    plain, longer = told(strategy), told(strategy, proxy_epochs=5, learning_rate=0.01, lora_dropout=0.1)
    assert bit_equal(plain.starts[MAIN], longer.starts[MAIN])
    config = asking(case_of(strategy)).model_copy(update={"seed": 6})
    assert not bit_equal(watch(small(), config, three_sets()).starts[MAIN], plain.starts[MAIN])


@stacked
def test_the_first_adapter_is_frozen_and_stays_active(strategy: str) -> None:
    config = asking(case_of(strategy))
    model = causal_model(small(), config.finetune_config)
    found = watch(small(), config, three_sets(), model=model)
    frozen = {
        name.replace(".first.", ".default."): weight.detach()
        for name, weight in model.network.named_parameters()
        if ".first." in name
    }
    assert bit_equal(frozen, found.moments[POSITIVE][-1].weights)
    # As evaluated: W + s·B₁A₁ + s·BA.
    network, sets = small(), three_sets()
    both = Model(network, found.result, config.finetune_config, second_stage(found, strategy).under)
    model.network.eval()
    for row in (*sets["outcome"], *sets["proxy"]):
        said = model.network(input_ids=torch.tensor([row.input_ids])).logits[0]
        torch.testing.assert_close(said, both.logits(row), rtol=1e-8, atol=1e-9)


@stacked
def test_many_batches_in_both_stages_follow_the_formula(strategy: str) -> None:
    network, sets, case = small(), many_rows(), case_of(strategy)
    config = asking(case, per_device_train_batch_size=8, epochs=2, optim="adamw_torch", learning_rate=0.01)
    found = watch(network, config, sets)
    assert {phase: len(moments) for phase, moments in found.moments.items()} == {POSITIVE: 6, MAIN: 6}
    agree(found, by_hand(case, network, config, sets, found, seen=True), rtol=1e-5, atol=1e-7)


@stacked
def test_the_first_stage_takes_epochs_where_proxy_epochs_are_not_asked_for(strategy: str) -> None:
    found = told(strategy, epochs=3, proxy_epochs=None)
    assert {phase: len(moments) for phase, moments in found.moments.items()} == {POSITIVE: 3, MAIN: 3}


# o_lora
# --------------------------------------------------------------------------------------------------------


def test_the_penalty_of_o_lora_is_the_overlap_of_the_two_as() -> None:
    found = told("o_lora")
    first = matrices(found.moments[POSITIVE][-1].weights)
    fresh = matrices(found.starts[MAIN])
    overlap = sum(float((first[module][0] @ a.T).abs().sum()) for module, (a, _) in fresh.items())
    moment = found.moments[MAIN][0]
    expected = moment.terms["cross-entropy on outcome"] + 0.6 * overlap
    assert moment.loss == pytest.approx(expected, rel=1e-10)


def test_o_lora_keeps_the_second_adapter_away_from_the_first() -> None:
    def overlap(weight: float) -> float:
        found = told("o_lora", lambda_1=weight, epochs=6)
        first = matrices(found.moments[POSITIVE][-1].weights)
        return sum(float((first[m][0] @ a.T).abs().sum()) for m, (a, _) in matrices(found.result).items())

    assert overlap(0.5) < overlap(0.0)


# safe_lora
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["proxy", "proxy_neg", "outcome"])
def test_the_first_stage_of_safe_lora_learns_the_data_it_is_given(data: str) -> None:
    case = variant("safe_lora", data, positive_proxy=data)
    found, expected = told_twice(case, small(), asking(case), three_sets(), moved=False)
    agree(found, expected)
    assert {name for batch in found.batches[POSITIVE] for name in batch} == {data}


@pytest.mark.parametrize("number", [0, 1, 3, 8, 99])
def test_number_projects_those_with_the_lowest_cosine(number: int) -> None:
    found = safe(safe_lora_type="number", safe_lora_num_proj_layers=number)
    values = {
        m: cosine for m, (cosine, _) in cosines_of(second_stage(found, "safe_lora"), found.trained).items()
    }
    assert projected(found) == set(sorted(values, key=lambda module: values[module])[:number])
    assert f"{min(number, 8)} of 8 " in found.notes[0]


def test_a_threshold_projects_those_at_or_below_it() -> None:
    found = safe(0.5)
    values = {
        m: cosine for m, (cosine, _) in cosines_of(second_stage(found, "safe_lora"), found.trained).items()
    }
    for limit in (-1.0, *sorted(values.values()), 1.0):
        # Just above each cosine, as rounding decides at it.
        threshold = min(1.0, limit + 1e-9)
        expected = {module for module, cosine in values.items() if cosine <= threshold}
        assert projected(safe(threshold)) == expected
    assert 0 < len(projected(found)) < 8


def test_all_projected_is_c_times_b_for_every_matrix() -> None:
    found = safe(1.0)
    hand = second_stage(found, "safe_lora")
    expected: Weights = dict(found.trained)
    for module, (_, projected_b) in cosines_of(hand, found.trained).items():
        expected[f"{module}.lora_B.default.weight"] = projected_b
    same(found.result, expected, rtol=1e-9, atol=1e-12)
    assert len(projected(found)) == 8


def test_a_sweep_projects_one_training_again_and_again_each_time_from_the_unprojected_adapter() -> None:
    """Its last threshold is the result; in whatever order they come, each is what it is alone."""
    thresholds = (0.5, 0.3, 0.9)
    found = told(
        "safe_lora",
        safe_lora_type="threshold",
        safe_lora_num_proj_layers=None,
        safe_lora_sweep_thresholds=thresholds,
    )
    alone = [safe(threshold) for threshold in sorted(thresholds)]
    by_threshold = dict(zip(sorted(thresholds), alone, strict=True))
    assert len(found.endings) == 3
    for (label, end), threshold in zip(found.endings, thresholds, strict=True):
        assert str(threshold) in label
        assert bit_equal(end, by_threshold[threshold].result)
    assert len({len(projected(found, place)) for place in range(3)}) == 3


def test_a_sweep_tells_thresholds_apart_however_near() -> None:
    plain = safe(0.5)
    values = sorted(c for c, _ in cosines_of(second_stage(plain, "safe_lora"), plain.trained).values())
    near = (values[2] - 1e-9, values[2] + 1e-9)
    found = told(
        "safe_lora",
        safe_lora_type="threshold",
        safe_lora_num_proj_layers=None,
        safe_lora_sweep_thresholds=near,
    )
    assert [len(projected(found, place)) for place in range(2)] == [2, 3]


def test_what_is_projected_writes_nothing_but_what_the_first_stage_wrote() -> None:
    """C·B lies in the span of W_a − W₀, and has the size of W_a − W₀: C is no projector of length 1."""
    found = safe(1.0)
    hand = second_stage(found, "safe_lora")
    for module, (_, b) in matrices(found.result).items():
        moved = hand.under[module]
        basis, singular, _ = torch.linalg.svd(moved, full_matrices=False)
        own = basis[:, : asking(case_of("safe_lora")).finetune_config.r]
        torch.testing.assert_close(own @ own.T @ b, b, rtol=1e-7, atol=1e-10)
        before = matrices(found.trained)[module][1]
        weights = singular[: own.shape[1]].square() / moved.norm()
        torch.testing.assert_close(own.T @ b, weights[:, None] * (own.T @ before), rtol=1e-7, atol=1e-10)


def test_safe_lora_starts_from_the_unaligned_model_where_one_is_named() -> None:
    named: ExperimentConfig = configuration("safe_lora", safe_lora_unaligned_model="some/base")
    kind = strategy_class("safe_lora")
    assert kind.initial_checkpoint(named) == "some/base"
    assert kind.initial_checkpoint(configuration("safe_lora")) is None
