"""Several sources in one update, of unequal lengths: which rows meet, in both cycling modes, and that the
formula holds for just those rows.

pytest tests/strategies/test_source_cycling.py"""

from __future__ import annotations

import functools

import pytest
from formulas import CASES, Case, case_of, variant
from small_models import rows
from stories import agree, asking, by_hand, small, three_sets, twins
from transformers import PreTrainedModel
from watched import Story, bit_equal, watch

from triggerctl.config.models import ExperimentConfig
from triggerctl.data.encoding import Encoded

SEVERAL = {
    str(case): case
    for case in (
        case_of("positive_negative_proxy"),
        variant("positive_negative_proxy", "with KL", beta_kl=0.9),
        case_of("kl_divergence"),
        case_of("representation_constraint"),
        case_of("grad_project"),
        variant("grad_project", "negative", project_along_positive_proxy_grad=False),
        case_of("dpo"),
    )
}
ONE_SOURCE = [case for case in CASES if case.strategy not in SEVERAL]

SIZES = {
    # (mode, the longer source) → rows of outcome, and of each other source, in an epoch's updates.
    ("continuous", "outcome"): ([3, 3, 1], [3, 1, 3]),
    ("continuous", "proxy"): ([3, 1], [3, 3]),
    ("synchronized", "outcome"): ([3, 3, 1], [3, 1, 0]),
    ("synchronized", "proxy"): ([3, 1, 0], [3, 3, 1]),
}
EPOCHS = 2

every_case = pytest.mark.parametrize("name", SEVERAL)
every_mode = pytest.mark.parametrize(("mode", "longer"), SIZES)


def calm() -> PreTrainedModel:
    """A model about as good as a guess at any row: with few rows in an update, losses must not vary so much
    that they pass for divergence."""
    return small(initializer_range=0.08)


def sets_of(longer: str) -> dict[str, list[Encoded]]:
    """Seven rows and four."""
    outcome, other = (7, 4) if longer == "outcome" else (4, 7)
    proxy = rows([3 + i % 4 for i in range(other)], seed=2, first=100)
    return {
        "outcome": rows([2 + i % 5 for i in range(outcome)], seed=1),
        "proxy": proxy,
        "proxy_neg": twins(proxy, seed=3),
    }


def config_of(case: Case, mode: str) -> ExperimentConfig:
    return asking(case, epochs=EPOCHS, per_device_train_batch_size=3, proxy_cycling_mode=mode)


@functools.cache
def trained(name: str, mode: str, longer: str) -> Story:
    return watch(calm(), config_of(SEVERAL[name], mode), sets_of(longer))


def epochs_of(story: Story, source: str) -> list[list[list[int]]]:
    """Epoch → update → the rows of a source."""
    seen = [[row.row for row in batch.get(source, [])] for batch in story.batches["main"]]
    length = len(seen) // EPOCHS
    return [seen[start : start + length] for start in range(0, len(seen), length)]


@every_case
@every_mode
def test_the_formula_holds_for_the_rows_that_meet(name: str, mode: str, longer: str) -> None:
    """Where a source sits out its terms do, and the gradient is not projected along one that is not there."""
    found, case = trained(name, mode, longer), SEVERAL[name]
    agree(found, by_hand(case, calm(), config_of(case, mode), sets_of(longer), found, seen=True))


@every_case
@every_mode
def test_an_epoch_has_the_updates_and_the_rows_that_the_mode_says(name: str, mode: str, longer: str) -> None:
    found = trained(name, mode, longer)
    task, other = SIZES[mode, longer]
    sources = {source for batch in found.batches["main"] for source in batch}
    assert len(sources) >= 2
    for source in sources:
        for epoch in epochs_of(found, source):
            assert [len(update) for update in epoch] == (task if source == "outcome" else other)


@every_case
@every_mode
def test_a_source_is_seen_whole_before_any_row_of_it_comes_again(name: str, mode: str, longer: str) -> None:
    found, sets = trained(name, mode, longer), sets_of(longer)
    for source in sets:
        members = sorted(row.row for row in sets[source])
        for epoch in epochs_of(found, source):
            passed: list[int] = []
            for update in epoch:
                passed += update
                assert len(set(passed)) == len(passed)
                if len(passed) == len(members):
                    assert sorted(passed) == members
                    passed = []


@every_case
def test_a_source_that_starts_again_is_shuffled_anew(name: str) -> None:
    """A pass that starts again goes through its rows in another order, and so does each epoch."""
    proxy = rows([4] * 6, seed=2, first=100)
    sets = {"outcome": rows([4] * 13, seed=1), "proxy": proxy, "proxy_neg": twins(proxy, seed=3)}
    found = watch(calm(), config_of(SEVERAL[name], "continuous"), sets)
    for source in {source for batch in found.batches["main"] for source in batch}:
        starts = (0,) if source == "outcome" else (0, 2, 4)
        firsts = [sorted(epoch[start]) for epoch in epochs_of(found, source) for start in starts]
        assert len({tuple(first) for first in firsts}) > len(firsts) / 2


@every_mode
def test_a_pair_is_never_split(mode: str, longer: str) -> None:
    for batch in trained("dpo", mode, longer).batches["main"]:
        pairs = (sorted(row.row for row in batch.get(source, [])) for source in ("proxy", "proxy_neg"))
        assert next(pairs) == next(pairs)


@pytest.mark.parametrize("case", ONE_SOURCE, ids=str)
def test_the_mode_means_nothing_where_there_is_one_source_at_a_time(case: Case) -> None:
    found, other = (
        watch(calm(), config_of(case, mode), three_sets()) for mode in ("continuous", "synchronized")
    )
    assert bit_equal(found.result, other.result)
    assert found.moments.keys() == other.moments.keys()
