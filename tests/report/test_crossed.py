"""pytest tests/report/test_crossed.py"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from triggerctl.report.crossed import (
    Floats,
    Spread,
    limits,
    p_of_zero,
    pooled_freedom,
    spread,
    spread_of_rates,
)

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "simulated_runs.py"


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulated_runs", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_variances_are_those_of_a_two_way_analysis() -> None:
    random = np.random.default_rng(1)
    seeds, words, rows = 5, 4, 30
    k = random.binomial(rows, 0.4, (seeds, words)).astype(float)
    rates = k / rows
    found = spread(k[None, None], np.full((1, 1, seeds, words), float(rows)))
    by_seed, by_word = rates.mean(1), rates.mean(0)
    rest = rates - by_seed[:, None] - by_word + rates.mean()
    size = seeds * words
    assert found.by_seed[0, 0, 0] == pytest.approx(by_seed.var(ddof=1) / seeds)
    assert found.by_word[0, 0, 0, 0] == pytest.approx(by_word.var(ddof=1) / words)
    assert found.by_pair[0, 0, 0, 0] == pytest.approx((rest**2).sum() / ((seeds - 1) * (words - 1)) / size)
    assert found.rows[0, 0] == pytest.approx(size * rows)


def test_two_groups_covary_as_their_seeds_do() -> None:
    k = np.array([[[3.0], [9.0], [6.0]], [[1.0], [8.0], [6.0]]])
    found = spread(k[None], np.full((1, 2, 3, 1), 10.0))
    assert found.by_seed[0] == pytest.approx(np.cov(k[..., 0] / 10) / 3)


def test_without_counts_only_seeds_are_known() -> None:
    found = spread_of_rates(np.array([[0.2, 0.5, 0.4]]))
    assert found.by_seed[0, 0] == pytest.approx(np.var([0.2, 0.5, 0.4], ddof=1) / 3)
    assert found.words.size == 0
    assert np.isinf(found.rows).all()


def test_a_word_that_a_seed_lacks_is_no_word_without_hits() -> None:
    k = np.array([[[4.0, 0.0, 2.0], [5.0, 3.0, 0.0], [0.0, 4.0, 3.0]]])
    n = np.array([[[10.0, 0.0, 10.0], [10.0, 10.0, 0.0], [0.0, 10.0, 10.0]]])
    found = spread(k[None], n[None])
    assert found.rates[0, 0] == pytest.approx([0.3, 0.4, 0.35])
    assert found.words[0, 0] == 3


@pytest.mark.parametrize(
    ("seeds", "words", "rate", "noise"),
    [
        (3, 5, 0.1, (1, 0.5, 0.5)),
        (5, 5, 0.98, (0.5, 1, 0.5)),
        (10, 12, 0.5, (1.5, 1, 0.5)),
        (5, 1, 0.02, (0, 0, 0)),
    ],
)
def test_the_truth_is_covered(
    simulation: ModuleType, seeds: int, words: int, rate: float, noise: tuple[float, float, float]
) -> None:
    """A few worlds of the whole simulation; with 600 repeats 0.9 lies four standard errors below 0.95."""
    drawn = simulation.draw(np.random.default_rng(3), 600, seeds, words, [rate], simulation.Noise(*noise))
    found = spread(drawn.k, drawn.n)
    low, high = limits(found, np.ones(1), 0.95)
    assert ((low <= drawn.these_words[:, 0]) & (drawn.these_words[:, 0] <= high)).mean() >= 0.9
    if words > 1:
        low, high = limits(found, np.ones(1), 0.95, over_words=True)
        assert ((low <= rate) & (rate <= high)).mean() >= 0.9


def apart(k: Floats, n: Floats) -> Spread:
    """Of parts (repeats, parts, seeds, words) that share no word."""
    parts, words = k.shape[1], k.shape[-1]
    own = np.eye(parts)[None, :, None, :, None]
    table = [(own * given[:, :, :, None, :]).reshape(*k.shape[:-1], parts * words) for given in (k, n)]
    return spread(table[0], table[1], np.repeat(np.arange(parts), words))


@pytest.mark.parametrize("rates", [(0.9, 0.7, 0.1), (0.7, 0.5, 0.5), (0.98, 0.98, 0.98)])
def test_separation_over_new_words_is_covered_and_not_always(
    simulation: ModuleType, rates: tuple[float, float, float]
) -> None:
    """Nowhere too rarely, and where nothing is near 0 or 1 in no more than 98.5 % of repeats."""
    weights = np.array([0.5, 0.5, -1.0])
    noise = simulation.Noise(0.5, 1, 0.5)
    drawn = simulation.draw(np.random.default_rng(6), 1500, 10, 12, rates, noise, same_words=False)
    low, high = limits(apart(drawn.k, drawn.n), weights, 0.95, over_words=True)
    truth = np.dot(weights, rates)
    covers = ((low <= truth) & (truth <= high)).mean()
    assert covers >= 0.92
    if max(rates) < 0.95:
        assert covers <= 0.985


def test_what_several_sets_of_words_add_is_known_better_than_what_one_adds() -> None:
    spare = np.full((1, 3), 4.0)
    assert pooled_freedom(np.array([[1.0, 1.0, 1.0]]), spare) == pytest.approx([12])
    assert pooled_freedom(np.array([[1.0, 0.0, 0.0]]), spare) == pytest.approx([4])
    assert pooled_freedom(np.array([[4.0, 1.0]]), np.array([[4.0, 11.0]])) == pytest.approx(
        [25 / (4 + 1 / 11)]
    )
    assert pooled_freedom(np.array([[0.0, -1e-19]]), np.array([[4.0, 11.0]])) == pytest.approx([4])


def test_of_sets_that_share_no_word_one_alone_varying_decides() -> None:
    """The sum is then as uncertain as the part that varies: what the others add must not narrow it."""
    k = np.zeros((1, 2, 6, 4))
    k[:, 0] = 20
    k[:, 1] = np.array([2.0, 10.0, 14.0, 6.0])
    found = apart(k, np.full(k.shape, 20.0))
    low, high = limits(found, np.array([0.0, 1.0]), 0.95, over_words=True)
    alone_low, alone_high = limits(
        spread(k[:, 1:], np.full((1, 1, 6, 4), 20.0)), np.ones(1), 0.95, over_words=True
    )
    assert low[0] <= alone_low[0] + 1e-9
    assert high[0] >= alone_high[0] - 1e-9


def test_seeds_that_all_agree_on_a_difference_leave_doubt_of_rows() -> None:
    """No seed differs from the others, so Student's interval has no width; rows still might have fallen
    otherwise."""
    k, n = np.array([[[[4.0]] * 3, [[1.0]] * 3]]), np.full((1, 2, 3, 1), 20.0)
    weights = np.array([1.0, -1.0])
    low, high = limits(spread(k, n), weights, 0.95)
    assert low[0] < 0 < 0.15 < high[0]
    assert 0.05 < p_of_zero(spread(k, n), weights)[0] < 1


def test_p_is_below_a_level_just_where_the_interval_leaves_0_out(simulation: ModuleType) -> None:
    drawn = simulation.draw(
        np.random.default_rng(7), 400, 3, 5, [0.9, 0.4], simulation.Noise(0.5, 0.5, 0.25, 0.5, 0.25)
    )
    found, weights = spread(drawn.k, drawn.n), np.array([-1.0, 1.0])
    low, high = limits(found, weights, 0.95)
    p = p_of_zero(found, weights)
    sure = np.abs(p - 0.05) > 1e-3
    assert 0.1 < (p < 0.05).mean() < 0.9
    assert (((low > 0) | (high < 0)) == (p < 0.05))[sure].all()


@pytest.mark.parametrize(("seeds", "words"), [(3, 3), (5, 5), (5, 2)])
def test_new_words_never_make_a_difference_surer(simulation: ModuleType, seeds: int, words: int) -> None:
    """Of few rows square-and-add alone would, in one repeat of three to ten: what is sure over new words
    is so over these words, and the p-value, which is over these, never contradicts it."""
    drawn = simulation.draw(
        np.random.default_rng(8), 400, seeds, words, [0.9, 0.4], simulation.Noise(0.5, 0.5, 0.25, 0.5, 0.25)
    )
    n = np.where(drawn.n > 0, 10.0, 0.0)
    k = np.round(drawn.k / np.maximum(drawn.n, 1) * n)
    found, weights = spread(k, n), np.array([-1.0, 1.0])
    low, high = limits(found, weights, 0.95)
    wide_low, wide_high = limits(found, weights, 0.95, over_words=True)
    assert (wide_low <= low).all()
    assert (wide_high >= high).all()
    assert (wide_high - wide_low > high - low + 1e-3).mean() > 0.1
    sure = (wide_low > 0) | (wide_high < 0)
    assert sure.any()
    assert (p_of_zero(found, weights)[sure] < 0.051).all()


def test_a_difference_that_is_none_is_rarely_found(simulation: ModuleType) -> None:
    drawn = simulation.draw(
        np.random.default_rng(4), 1500, 5, 5, [0.5, 0.5], simulation.Noise(1, 1, 0.5, 1, 0)
    )
    p = p_of_zero(spread(drawn.k, drawn.n), np.array([-1.0, 1.0]))
    assert (p <= 0.05).mean() <= 0.06


def test_a_difference_that_is_large_is_found(simulation: ModuleType) -> None:
    drawn = simulation.draw(
        np.random.default_rng(5), 300, 5, 5, [0.7, 0.1], simulation.Noise(0.5, 0.5, 0.25, 0.25, 0)
    )
    p = p_of_zero(spread(drawn.k, drawn.n), np.array([-1.0, 1.0]))
    assert (p <= 0.05).mean() > 0.95
