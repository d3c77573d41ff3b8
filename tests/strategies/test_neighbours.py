"""With its weight at zero a strategy is its simpler neighbour, bit for bit: in half the usual precision, with
dropout, several updates an epoch, and whatever phases came before.

pytest tests/strategies/test_neighbours.py"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from formulas import BOTH, CASES
from small_models import causal_model, configuration
from stories import small, three_sets
from torch import Tensor
from watched import Story, bit_equal, watch

from triggerctl.config.models import ExperimentConfig
from triggerctl.model.causal import CausalModel
from triggerctl.strategies import strategy_class
from triggerctl.strategies.base import LOSS, Tensors, Update

STEERING = {**BOTH, "steering_alpha": 0.0}
LINEAR = {"alpha_scheduler_type": "linear", "final_steering_alpha": 0.0, "alpha_warmup_steps": 1}
WHOLE = {"calc_alignment_plane_using_fully_finetuned_weights": True}

ZEROED: list[tuple[str, str, dict[str, Any]]] = [
    *((case.strategy, case.neighbour, dict(case.zeroed)) for case in CASES if case.neighbour),
    (
        "positive_negative_proxy",
        "outcome_only",
        {"lambda_proxy": 0.0, "neg_lambda_proxy": 0.0, "beta_kl": 2.0},
    ),
    ("representation_constraint", "outcome_only", {"beta_representation": 0.0, "beta_kl": 2.0}),
    ("dpo", "outcome_only", {"lambda_dpo": 0.0, "dpo_length_normalized": False}),
    ("steering_weights", "outcome_only", {**STEERING, "direct_steering": True}),
    ("steering_weights", "outcome_only", {**STEERING, **LINEAR}),
    ("steering_weights", "outcome_only", {**STEERING, **LINEAR, "direct_steering": True}),
    ("steering_weights", "outcome_only", {**STEERING, **WHOLE}),
]

NOT_ZEROED: dict[str, dict[str, Any]] = {
    "positive_negative_proxy": {"lambda_proxy": 0.1},
    "kl_divergence": {"beta_kl": 0.1},
    "representation_constraint": {"beta_representation": 0.1},
    "dpo": {"lambda_dpo": 0.1},
    "orth_penalty": {**BOTH, "lambda_1": 0.1},
    "directional_penalty": {**BOTH, "lambda_1": 0.1},
    "steering_weights": {**BOTH, "steering_alpha": 0.1},
    "steering_weights_add_alignment_plane": {**BOTH, "steering_alpha": 0.1},
}


def asking(strategy: str, is_peft: bool, **options: Any) -> ExperimentConfig:
    common: dict[str, Any] = {
        "is_peft": is_peft,
        "epochs": 2,
        "per_device_train_batch_size": 3,
        "optim": "adamw_torch",
        "lora_dropout": 0.2 if is_peft else 0.0,
    }
    return configuration(strategy, **{**common, **options})


def trained(strategy: str, is_peft: bool, model: CausalModel | None = None, **options: Any) -> Story:
    config = asking(strategy, is_peft, **options)
    return watch(small(dtype=torch.float32), config, three_sets(), model=model)


@functools.cache
def outcome_only(is_peft: bool, **options: Any) -> Story:
    return trained("outcome_only", is_peft, **options)


def modes(strategy: str) -> list[bool]:
    return [True] if strategy_class(strategy).lora_only else [True, False]


@pytest.mark.parametrize(
    ("strategy", "neighbour", "options", "is_peft"),
    [
        pytest.param(*zeroed, is_peft, id=f"{number}-{zeroed[0]}-{'lora' if is_peft else 'full'}")
        for number, zeroed in enumerate(ZEROED)
        for is_peft in modes(zeroed[0])
    ],
)
def test_at_weight_zero_it_is_its_neighbour_bit_for_bit(
    strategy: str, neighbour: str, options: dict[str, Any], is_peft: bool
) -> None:
    assert neighbour == "outcome_only"
    found, other = trained(strategy, is_peft, **options), outcome_only(is_peft)
    assert bit_equal(found.trained, other.trained)
    assert bit_equal(found.result, other.result)
    assert [m.loss for m in found.moments["main"]] == [m.loss for m in other.moments["main"]]


@pytest.mark.parametrize("strategy", NOT_ZEROED)
def test_at_a_small_weight_it_is_not(strategy: str) -> None:
    """Else the test above would say nothing. Without dropout, whose chance a term more would move too."""
    found = trained(strategy, True, lora_dropout=0.0, **NOT_ZEROED[strategy])
    assert not bit_equal(found.result, outcome_only(True, lora_dropout=0.0).result)


def on_top_of_a_frozen_adapter(of: Story) -> Story:
    """`outcome_only` from where the second phase of a stacked story starts."""
    options = asking("outcome_only", True).finetune_config
    model = causal_model(small(dtype=torch.float32), options)
    copy_into(model.trainable, of.moments["positive_proxy"][-1].weights)
    model.stack(seed=0)
    copy_into(model.trainable, of.starts["main"])
    return trained("outcome_only", True, model)


@torch.no_grad()
def copy_into(weights: Any, values: dict[str, Tensor]) -> None:
    assert weights.keys() == values.keys()
    for name, value in values.items():
        weights[name].copy_(value)


def test_o_lora_without_its_penalty_is_outcome_only_on_top_of_the_frozen_adapter() -> None:
    found = trained("o_lora", True, lambda_1=0.0)
    other = on_top_of_a_frozen_adapter(found)
    assert bit_equal(found.trained, other.trained)
    assert bit_equal(found.result, other.result)
    penalised = trained("o_lora", True, lambda_1=0.1)
    assert bit_equal(penalised.starts["main"], found.starts["main"])
    assert not bit_equal(penalised.result, found.result)


@pytest.mark.parametrize(
    "nothing",
    [
        {"safe_lora_type": "number", "safe_lora_num_proj_layers": 0},
        {"safe_lora_type": "threshold", "safe_lora_threshold": -1.0},
        {"safe_lora_type": "threshold", "safe_lora_sweep_thresholds": (0.9, -1.0)},
    ],
    ids=["number", "threshold", "last of a sweep"],
)
def test_safe_lora_with_nothing_projected_is_its_second_stage(nothing: dict[str, Any]) -> None:
    found = trained("safe_lora", True, **nothing)
    other = on_top_of_a_frozen_adapter(found)
    assert bit_equal(found.trained, other.trained)
    assert bit_equal(found.result, other.result)


@pytest.mark.parametrize("strictly", [True, False], ids=["strictly", "on conflict"])
@pytest.mark.parametrize("is_peft", [True, False], ids=["lora", "full"])
def test_grad_project_along_a_zero_gradient_is_outcome_only(is_peft: bool, strictly: bool) -> None:
    """Without dropout, whose chance the second gradient would move."""
    config = asking("grad_project", is_peft, lora_dropout=0.0, project_strictly_orthogonal=strictly)

    class Flat(strategy_class("grad_project")):  # type: ignore[misc]
        """As if every answer of proxy were certain already."""

        def combine_gradients(self, groups: Any, update: Update) -> Tensors:
            others = {name: g for name, g in groups.items() if name != LOSS}
            assert others
            zeros = {name: {n: torch.zeros_like(t) for n, t in g.items()} for name, g in others.items()}
            combined: Tensors = super().combine_gradients({**groups, **zeros}, update)
            return combined

    found = watch(small(dtype=torch.float32), config, three_sets(), strategy=Flat(config))
    assert bit_equal(found.result, outcome_only(is_peft, lora_dropout=0.0).result)
    itself = watch(small(dtype=torch.float32), config, three_sets())
    assert not bit_equal(itself.result, found.result)


def test_a_tensor_whose_plane_is_zero_keeps_its_gradient() -> None:
    """A fresh adapter's first gradient in A is zero: after a proxy phase of one update A is not projected."""
    network, sets = small(), three_sets()
    found = watch(network, configuration("grad_project_precomputed_proxy_grad", epochs=2), sets, moved=False)
    met = found.moments["positive_proxy"][0].gradient
    assert {name for name in met if not met[name].any()} == {name for name in met if ".lora_A." in name}
    # From the weights that the first update has left, A has a gradient of its own.
    model = causal_model(network, configuration("outcome_only").finetune_config)
    copy_into(model.trainable, found.moments["main"][0].weights)
    other = watch(network, configuration("outcome_only", epochs=1), sets, model=model)
    ours, theirs = found.moments["main"][1].gradient, other.moments["main"][0].gradient
    for name in met:
        assert torch.equal(ours[name], theirs[name]) is (".lora_A." in name)
        assert theirs[name].any()
