"""An update's gradients are the same, made ready by itself or with those before it.
Run: pytest tests/training/test_made_ready.py"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_models import causal_model, configuration, exact_norms, llama, rows
from torch import Tensor

from triggerctl.data.batches import collate
from triggerctl.errors import RunError
from triggerctl.strategies import strategy_class
from triggerctl.strategies.base import Phase, cross_entropy
from triggerctl.training import gradients
from triggerctl.training.gradients import AHEAD, GradientPass, phase_data
from triggerctl.training.streams import Units

PLAN: list[Units] = [
    {"outcome": [0, 1], "proxy": [2]},
    {"outcome": [3], "proxy": [0, 1]},
    {"outcome": [4, 2]},
]


def kl_pass(*, empty: int | None = None) -> GradientPass:
    """`empty`: which of outcome's rows has nothing to learn."""
    [phase] = strategy_class("kl")(configuration("kl")).phases()
    return pass_over(phase, "kl", empty=empty)


def pass_over(phase: Phase, strategy: str, *, empty: int | None = None) -> GradientPass:
    """Over five rows of each set, one at a time."""
    model = causal_model(exact_norms(llama()), configuration(strategy).finetune_config)
    sets = {name: rows((4, 9, 6, 3, 17), seed=n) for n, name in enumerate(("outcome", "proxy", "proxy_neg"))}
    if empty is not None:
        row = sets["outcome"][empty]
        sets["outcome"][empty] = replace(row, loss_start=len(row.input_ids))
    data = phase_data(phase, sets, model, pad_id=0, progress=lambda done, total: None)
    return GradientPass(model, phase, data, model.trainable, limit=1, pad_id=0)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many batches have been put together, counted up in its one number."""
    count = [0]

    def counting(*given: Any) -> Any:
        count[0] += 1
        return collate(*given)

    monkeypatch.setattr(gradients, "collate", counting)
    return count


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_an_update_is_the_same_made_ready_alone_or_with_others(made: list[int]) -> None:
    alone, together = kl_pass(), kl_pass()
    expected = [alone.of(units) for units in PLAN]
    batches, made[0] = made[0], 0
    found = [together.of(units, PLAN[i + 1 :]) for i, units in enumerate(PLAN)]
    assert made[0] == batches > 0
    for one, other in zip(found, expected, strict=True):
        assert same(one.groups["loss"], other.groups["loss"])
        assert (one.terms, one.trained, one.padded) == (other.terms, other.trained, other.padded)


def test_all_are_made_ready_with_the_first(made: list[int]) -> None:
    together = kl_pass()
    together.of(PLAN[0], PLAN[1:])
    batches, made[0] = made[0], 0
    for units in PLAN[1:]:
        together.of(units)
    assert batches > 0
    assert made[0] == 0


def test_another_update_than_was_announced_is_made_ready_anew() -> None:
    changed = kl_pass()
    changed.of(PLAN[0], PLAN[1:])
    assert same(changed.of(PLAN[2]).groups["loss"], kl_pass().of(PLAN[2]).groups["loss"])
    again = changed.of({**PLAN[0]})
    assert same(again.groups["loss"], kl_pass().of(PLAN[0]).groups["loss"])


@pytest.mark.parametrize(
    ("tokens", "updates"), [(1, 1), (4 + 9 + 6 + 1, 2), (10_000, AHEAD)], ids=lambda number: f"{number}"
)
def test_no_more_are_made_ready_than_fill_some_tokens(
    tokens: int, updates: int, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "AHEAD_TOKENS", tokens)
    plan = [PLAN[0].copy() for _ in range(2 * AHEAD)]
    kl_pass().of(plan[0], plan[1:])
    assert made[0] == 2 * updates


def test_what_only_calls_itself_a_cross_entropy_goes_its_own_way() -> None:
    """Twice it is another term, and its gradient twice as long."""
    plain = cross_entropy("outcome")
    twice = replace(plain, total=lambda forward: -2 * forward.log_likelihood())
    assert twice.is_cross_entropy
    found = {}
    for term in (plain, twice):
        [phase] = strategy_class("naive")(configuration("naive")).phases()
        phase = replace(phase, streams={"outcome": ("outcome",)}, terms=(term,))
        found[term.total] = pass_over(phase, "naive").of({"outcome": [0, 1, 4]})
    once, double = found[plain.total], found[twice.total]
    [value] = once.terms.values()
    assert double.terms == {plain.name: pytest.approx(2 * value, rel=1e-12)}
    for name, gradient in once.groups["loss"].items():
        torch.testing.assert_close(double.groups["loss"][name], 2 * gradient, rtol=1e-10, atol=1e-12)


def test_rows_with_nothing_to_learn_are_told_when_their_turn_comes() -> None:
    passed = kl_pass(empty=3)
    passed.of(PLAN[0], PLAN[1:])
    with pytest.raises(RunError, match="nothing to learn"):
        passed.of(PLAN[1])
