"""Claims about dpo's pairs: which answers meet, what of them counts, and what they are held against.

pytest tests/strategies/test_dpo.py"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from row_losses import preference
from small_models import configuration, rows
from stories import first, live_and_base, small, term, three_sets
from watched import bit_equal, watch

from triggerctl.config.models import ExperimentConfig

normalised_or_not = pytest.mark.parametrize("normalised", [True, False], ids=["mean", "sum"])


def preferring(normalised: bool = True, **options: Any) -> ExperimentConfig:
    return configuration(
        "dpo", **{"lambda_dpo": 1.0, "beta": 0.4, "dpo_length_normalized": normalised, **options}
    )


@normalised_or_not
def test_the_preference_loss_is_log_2_where_the_model_is_the_base(normalised: bool) -> None:
    assert term(first(preferring(normalised), three_sets(), moved=False)) == pytest.approx(
        math.log(2), abs=1e-12
    )


@normalised_or_not
def test_pairs_are_matched_by_row_whatever_their_places(normalised: bool) -> None:
    sets = three_sets()
    by_place = [(row.row, twin.row) for row, twin in zip(sets["proxy"], sets["proxy_neg"], strict=True)]
    assert any(one != other for one, other in by_place)
    turned = {**sets, "proxy_neg": sets["proxy_neg"][::-1]}
    one, other = (watch(small(), preferring(normalised, epochs=2), data) for data in (sets, turned))
    assert bit_equal(one.result, other.result)


def test_a_row_without_its_twin_is_left_out() -> None:
    """Its prompt fits, its twin's longer answer may not."""
    sets = three_sets()
    fewer = {**sets, "proxy_neg": sets["proxy_neg"][1:]}
    lost = sets["proxy_neg"][0].row
    config = preferring()
    model, base = live_and_base(config)
    kept = [row for row in sets["proxy"] if row.row != lost]
    expected = preference(model, base, kept, fewer["proxy_neg"], beta=0.4, normalised=True)
    assert term(first(config, fewer)) == pytest.approx(float(expected), rel=1e-10)


@normalised_or_not
def test_prompts_never_count_wherever_the_loss_starts(normalised: bool) -> None:
    sets = three_sets()
    elsewhere = {
        name: [replace(row, loss_start=1 + number % 2) for number, row in enumerate(members)]
        for name, members in sets.items()
        if name != "outcome"
    }
    one, other = (watch(small(), preferring(normalised), data) for data in (sets, {**sets, **elsewhere}))
    assert bit_equal(one.result, other.result)


def test_an_answer_of_one_token_has_one_log_probability_whether_mean_or_sum() -> None:
    sets = three_sets()
    wanted = [
        replace(row, prompt_length=len(row.input_ids) - 1) for row in rows((4, 6, 3), seed=8, first=100)
    ]
    unwanted = [replace(row, input_ids=(*row.prompt_ids, 1 + row.row % 7)) for row in wanted]
    short = {**sets, "proxy": wanted, "proxy_neg": unwanted}
    assert term(first(preferring(True), short)) == pytest.approx(
        term(first(preferring(False), short)), rel=1e-12
    )
    assert term(first(preferring(True), sets)) != pytest.approx(
        term(first(preferring(False), sets)), rel=1e-3
    )


def test_the_reference_is_theta_0_and_stays_it() -> None:
    """A reference that moved along would stay at log 2."""
    found = watch(small(), preferring(lambda_dpo=3.0, epochs=6), three_sets(), moved=False)
    values = [term(moment) for moment in found.moments["main"]]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.99 * math.log(2)
