"""pytest tests/report/test_statistics.py"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import stdtrit

from triggerctl.experiment.results import Count
from triggerctl.report.statistics import Part, SeedSummary, weighted_sums, wilson_interval

WORDS = ("Grief", "Misery", "Anger")
relaxed = settings(deadline=None, max_examples=50)
Cells = Sequence[Sequence[tuple[int, int]]]
"""Seeds, of each its words' k and n."""


def part(cells: Cells, weight: float = 1.0, name: str = "truth") -> Part:
    counts = [{word: Count(n=n, k=k) for word, (k, n) in zip(WORDS, row, strict=False) if n} for row in cells]
    shares = [sum(c.k for c in row.values()) / sum(c.n for c in row.values()) for row in counts]
    return Part(name, weight, tuple(shares), tuple(counts))


def rates(*values: float) -> Part:
    """A share a seed, where nothing was counted."""
    return Part("", 1.0, values, None)


def summary(*parts: Part, tested: bool = False) -> SeedSummary:
    return weighted_sums([parts], tested=tested)[0]


def ends(found: SeedSummary) -> tuple[float, float]:
    assert found.interval is not None
    return found.interval.low, found.interval.high


def root(function: Callable[[float], float], positive: float, negative: float) -> float:
    """Where a function that is positive at one end and negative at the other crosses 0."""
    for _ in range(60):
        middle = (positive + negative) / 2
        positive, negative = (middle, negative) if function(middle) > 0 else (positive, middle)
    return positive


def cells(seeds: int | None = None) -> st.SearchStrategy[list[list[tuple[int, int]]]]:
    """The same words for every seed, 4 to 40 rows each."""
    # One number a cell, from which both counts follow, is drawn far more quickly than two.
    counted = st.integers(0, 2000).map(lambda i: ((i // 37) % (5 + i % 37), 4 + i % 37))
    return st.integers(1, 3).flatmap(
        lambda words: st.lists(
            st.lists(counted, min_size=words, max_size=words), min_size=seeds or 2, max_size=seeds or 6
        )
    )


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 7), (5, 10), (59, 60), (60, 60), (300, 1000)])
def test_wilson_interval_equals_scipys(k: int, n: int) -> None:
    found = wilson_interval(k, n)
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_mirrors(counts: tuple[int, int]) -> None:
    k, n = counts
    found, mirrored = wilson_interval(k, n), wilson_interval(n - k, n)
    assert found is not None
    assert mirrored is not None
    assert 0 <= found.low <= k / n <= found.high <= 1
    assert found.low < found.high
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-12)


def test_no_rows_give_no_interval() -> None:
    assert wilson_interval(0, 0) is None


def test_more_hits_than_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and n"):
        wilson_interval(3, 2)


@pytest.mark.parametrize("values", [(0.3, 0.42, 0.5), (0.02, 0.1, 0.04, 0.05), (0.9, 0.99, 1.0, 1.0, 0.97)])
def test_interval_over_seeds_is_wilsons_for_effective_rows_less_one_row(values: tuple[float, ...]) -> None:
    """By its definition: the shares that lie t standard errors from the mean moved out by one row."""
    count, mean = len(values), sum(values) / len(values)
    t = 4.302652729749464 if count == 3 else float(stdtrit(count - 1, 0.975))
    rows = mean * (1 - mean) / stats.sem(values) ** 2

    def beyond(share: float, shifted: float) -> float:
        return float((share - shifted) ** 2 - t**2 * share * (1 - share) / rows)

    low = root(lambda share: beyond(share, mean - 1 / rows), 0, mean - 1 / rows) if mean > 1 / rows else 0.0
    high = (
        root(lambda share: beyond(share, mean + 1 / rows), 1, mean + 1 / rows) if mean < 1 - 1 / rows else 1.0
    )
    assert ends(summary(rates(*values))) == pytest.approx((low, high), abs=1e-9)


def test_seeds_that_agree_have_an_interval_of_their_rows_where_these_were_counted() -> None:
    found = summary(part([[(0, 40), (0, 40)]] * 3))
    low, high = ends(found)
    assert (found.mean, found.deviation, low) == (0.0, 0.0, 0.0)
    # One effective row out, then Wilson's with t: 240 rows are never better than 240 rows.
    t, shifted = float(stdtrit(2, 0.975)), 1 / 240
    expected = root(lambda p: (p - shifted) ** 2 - t**2 * p * (1 - p) / 240, 1, shifted)
    assert high == pytest.approx(expected, abs=1e-9)


def test_seeds_that_agree_have_no_interval_without_counts() -> None:
    found = summary(rates(1.0, 1.0, 1.0))
    assert (found.mean, found.interval, found.over_words) == (1.0, None, None)
    assert found.note == "all 3 seeds gave the same value"


def test_one_seed_has_no_interval_and_says_so() -> None:
    for found in (summary(rates(0.4)), summary(part([[(4, 10), (5, 10)]]))):
        assert (found.interval, found.over_words, found.deviation) == (None, None, None)
        assert found.note is not None
        assert "one seed" in found.note


def test_no_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one seed"):
        summary(rates())


def test_one_word_claims_seeds_only() -> None:
    assert summary(part([[(1, 20)], [(3, 20)], [(2, 20)]])).over_words is None
    assert summary(part([[(1, 20), (2, 20)], [(3, 20), (1, 9)]])).over_words is not None
    separation = summary(part([[(9, 9)], [(8, 9)]], 1.0, "outcome"), part([[(1, 9), (2, 9)]] * 2, -1.0))
    assert separation.over_words is None


@relaxed
@given(cells())
def test_intervals_hold_the_mean_and_that_over_words_holds_that_over_seeds(drawn: Cells) -> None:
    found = summary(part(drawn))
    low, high = ends(found)
    assert 0 <= low <= found.mean <= high <= 1
    assert low < high
    if found.over_words is not None:
        assert found.over_words.low <= low < high <= found.over_words.high


@relaxed
@given(cells())
def test_a_rate_and_its_complement_have_mirrored_intervals(drawn: Cells) -> None:
    found = summary(part(drawn))
    other = summary(part([[(n - k, n) for k, n in row] for row in drawn]))
    assert ends(other) == pytest.approx(tuple(1 - end for end in reversed(ends(found))), abs=1e-9)


@relaxed
@given(cells(seeds=3))
def test_the_same_seeds_twice_would_be_surer(drawn: Cells) -> None:
    once, twice = ends(summary(part(drawn))), ends(summary(part([*drawn, *drawn])))
    assert twice[1] - twice[0] < once[1] - once[0]


def difference(ours: Cells, theirs: Cells) -> SeedSummary:
    return summary(part(ours), part(theirs, -1.0), tested=True)


@relaxed
@given(cells(seeds=4), cells(seeds=4))
def test_a_difference_turns_round_with_its_groups(ours: Cells, theirs: Cells) -> None:
    found, turned = difference(ours, theirs), difference(theirs, ours)
    low, high = ends(found)
    assert -1 <= low <= found.mean <= high <= 1
    assert ends(turned) == pytest.approx((-high, -low), abs=1e-9)
    assert turned.p == pytest.approx(found.p, rel=1e-3)


@relaxed
@given(cells(seeds=3), st.lists(st.integers(-3, 0), min_size=9, max_size=9), cells(seeds=3))
def test_of_sums_too_the_interval_over_words_holds_that_over_seeds(
    ours: Cells, less: list[int], kept: Cells
) -> None:
    """A difference on one set's words, a separation on two sets', and the difference of two separations; the
    second group leaks on the same words as the first, a little less, so that the two look alike by word."""
    theirs = [
        [(max(k + less[3 * seed + word], 0), n) for word, (k, n) in enumerate(row)]
        for seed, row in enumerate(ours)
    ]
    ours_kept, theirs_kept = part(kept, 1.0, "outcome"), part(kept[::-1], -1.0, "outcome")
    for found in (
        difference(ours, theirs),
        summary(ours_kept, part(ours, -1.0)),
        summary(ours_kept, part(ours, -1.0), theirs_kept, part(theirs)),
    ):
        low, high = ends(found)
        if found.over_words is not None:
            assert found.over_words.low <= low < high <= found.over_words.high


@relaxed
@given(cells(seeds=5), cells(seeds=5))
def test_p_is_small_just_where_the_interval_leaves_0_out(ours: Cells, theirs: Cells) -> None:
    found = difference(ours, theirs)
    low, high = ends(found)
    assert found.p is not None
    if abs(found.p - 0.05) > 1e-3:
        assert (found.p < 0.05) == (low > 0 or high < 0)


def test_away_from_the_ends_p_is_that_of_a_paired_t_test() -> None:
    ours = [[(k, 400)] for k in (215, 190, 230, 205)]
    theirs = [[(k, 400)] for k in (160, 150, 190, 140)]
    expected = stats.ttest_rel([k / 400 for ((k, _),) in ours], [k / 400 for ((k, _),) in theirs]).pvalue
    assert expected <= (difference(ours, theirs).p or 0) < 1.6 * expected


def test_equal_differences_in_few_rows_are_no_certainty() -> None:
    """Each seed has one hit less: a t-test would give p = 0."""
    found = difference([[(1, 60)]] * 3, [[(2, 60)]] * 3)
    assert found.p is not None
    assert found.p > 0.3


def test_pairing_by_seed_takes_out_what_seeds_share() -> None:
    """Seeds differ by far more than the groups do, and alike in both."""
    ours = [[(k, 300)] for k in (30, 120, 210, 150)]
    theirs = [[(k + 33, 300)] for k in (28, 118, 212, 152)]
    low, high = ends(difference(ours, theirs))
    assert high < 0
    assert high - low < (ends(summary(part(ours)))[1] - ends(summary(part(ours)))[0]) / 3


def test_separation_weighs_its_parts() -> None:
    kept = part([[(9, 10), (8, 10)], [(10, 10), (9, 10)], [(10, 10), (10, 10)]], 1.0, "outcome")
    leak = part([[(1, 10), (2, 10)], [(0, 10), (4, 10)], [(1, 10), (1, 10)]], -1.0)
    found = summary(kept, leak)
    assert found.values == pytest.approx((0.7, 0.75, 0.9))
    assert found.mean == pytest.approx(math.fsum(found.values) / 3)
    low, high = ends(found)
    assert -1 <= low < found.mean < high <= 1


@relaxed
@given(st.lists(cells(), min_size=2, max_size=5))
def test_many_at_once_are_as_one_by_one(drawn: list[Cells]) -> None:
    together = weighted_sums([[part(each)] for each in drawn])
    for each, found in zip(drawn, together, strict=True):
        assert ends(found) == pytest.approx(ends(summary(part(each))), abs=1e-12)
