"""A strategy trained twice, by the package and by hand, and the two stories held against each other.

Used by tests/strategies: pytest tests/strategies"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from by_hand import Hand
from formulas import Case
from row_losses import Model
from small_models import VOCABULARY, Sets, causal_model, configuration, exact_norms, llama, rows
from transformers import PreTrainedModel
from watched import Moment, Story, bit_equal, same, watch

from triggerctl.config.models import ExperimentConfig
from triggerctl.data.encoding import Encoded


def of_modes(cases: Sequence[Case]) -> pytest.MarkDecorator:
    """Every case with LoRA and, where the method means something without, with every weight trained."""
    modes = [
        pytest.param(case, is_peft, id=f"{case}-{'lora' if is_peft else 'full'}")
        for case in cases
        for is_peft in case.modes
    ]
    return pytest.mark.parametrize(("case", "is_peft"), modes)


def small(**changes: Any) -> PreTrainedModel:
    """Two layers, as little else as attention can do with."""
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1}
    return exact_norms(llama(**{**shape, **changes}))


def twins(members: Sequence[Encoded], *, seed: int) -> list[Encoded]:
    """The same prompts, with two or three tokens more in front of the answer; in another order."""
    draw = random.Random(seed)
    made = []
    for number, row in enumerate(members):
        nice = tuple(draw.randrange(VOCABULARY) for _ in range(2 + number % 2))
        made.append(replace(row, input_ids=row.prompt_ids + nice + row.response_ids))
    return made[::-1]


def three_sets() -> dict[str, list[Encoded]]:
    """Outcome, proxy and its twin, of few rows and of unequal lengths, so that every batch needs padding."""
    proxy = rows((6, 3, 8), seed=2, first=100)
    return {"outcome": rows((3, 9, 5, 2), seed=1), "proxy": proxy, "proxy_neg": twins(proxy, seed=3)}


def many_rows() -> dict[str, list[Encoded]]:
    """20 rows of outcome and 18 of each other: two updates of 16, the last one smaller."""
    proxy = rows([2 + n % 7 for n in range(18)], seed=4, first=50)
    outcome = rows([2 + n % 9 for n in range(20)], seed=5)
    return {"outcome": outcome, "proxy": proxy, "proxy_neg": twins(proxy, seed=6)}


def asking(case: Case, **finetune: Any) -> ExperimentConfig:
    """A configuration for the case: three epochs, two of the proxy phase, all rows in one update."""
    return configuration(case.strategy, **{"epochs": 3, "proxy_epochs": 2, **case.options, **finetune})


def by_hand(
    case: Case,
    network: PreTrainedModel,
    config: ExperimentConfig,
    sets: Sets,
    found: Story,
    *,
    seen: bool = False,
) -> Story:
    """The story as the formula tells it, from the weights from which the package's began; `seen`: of the rows
    that its updates saw."""
    hand = Hand(network, config, sets, found.starts, found.batches if seen else None)
    case.formula(hand)
    return hand.story


def agree(found: Story, expected: Story, *, rtol: float = 1e-8, atol: float = 1e-11) -> None:
    """Where each phase starts; losses, gradients and weights of all its updates; every ending."""
    assert set(found.moments) == set(expected.moments)
    for phase, moments in expected.moments.items():
        assert bit_equal(found.starts[phase], expected.starts[phase])
        assert len(found.moments[phase]) == len(moments)
        for ours, theirs in zip(found.moments[phase], moments, strict=True):
            assert ours.loss == pytest.approx(theirs.loss, rel=rtol)
            assert ours.rate == pytest.approx(theirs.rate)
            assert ours.norm == (None if theirs.norm is None else pytest.approx(theirs.norm, rel=rtol))
            same(ours.gradient, theirs.gradient, rtol=rtol, atol=atol)
            same(ours.weights, theirs.weights, rtol=rtol, atol=atol)
    assert len(found.endings) == len(expected.endings)
    for (_, end), (_, by_formula) in zip(found.endings, expected.endings, strict=True):
        same(end, by_formula, rtol=rtol, atol=atol)


def told_twice(
    case: Case, network: PreTrainedModel, config: ExperimentConfig, sets: Sets, **more: Any
) -> tuple[Story, Story]:
    """By the package, and by hand."""
    found = watch(network, config, sets, **more)
    return found, by_hand(case, network, config, sets, found)


def first(config: ExperimentConfig, sets: Sets, *, moved: bool = True) -> Moment:
    """The first update of the main phase."""
    return watch(small(), config, sets, moved=moved).moments["main"][0]


def term(moment: Moment) -> float:
    """The one term that is not a cross-entropy."""
    [value] = [value for name, value in moment.terms.items() if not name.startswith("cross-entropy")]
    return value


def live_and_base(config: ExperimentConfig) -> tuple[Model, Model]:
    options, network = config.finetune_config, small().requires_grad_(False)
    weights = {n: w.detach() for n, w in causal_model(small(), options).trainable.items()}
    return Model(network, weights, options), Model(network, {}, options)
