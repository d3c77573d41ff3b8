"""pytest tests/report/test_statistics.py"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from triggerctl.report.statistics import mean_over_seeds, wilson_interval


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


def test_interval_over_seeds_is_students() -> None:
    values = [0.3, 0.42, 0.5]
    found = mean_over_seeds(values)
    half = stats.sem(values) * 4.302652729749464  # the 97.5 % point of t with 2 degrees of freedom
    expected = (sum(values) / 3 - half, sum(values) / 3 + half)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx(expected, abs=1e-12)
    assert (found.seeds, found.note) == (3, None)
    assert found.deviation == pytest.approx(stats.tstd(values))


def test_interval_over_seeds_stays_within_what_a_rate_can_be() -> None:
    found = mean_over_seeds([0.0, 0.22, 0.65])
    assert found.interval is not None
    assert found.interval.low == 0.0
    assert found.interval.high <= 1.0
    free = mean_over_seeds([0.0, 0.22, 0.65], bounds=None)
    assert free.interval is not None
    assert free.interval.low < 0


def test_one_seed_has_no_interval_and_says_so() -> None:
    found = mean_over_seeds([0.4])
    assert (found.mean, found.interval, found.deviation) == (0.4, None, None)
    assert found.note is not None
    assert "one seed" in found.note


def test_seeds_that_agree_have_no_interval_rather_than_one_of_no_width() -> None:
    found = mean_over_seeds([1.0, 1.0, 1.0])
    assert (found.mean, found.interval) == (1.0, None)
    assert found.note == "all 3 seeds gave the same value"


def test_no_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one seed"):
        mean_over_seeds([])
