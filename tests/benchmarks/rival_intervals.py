"""Ways of making a 95 % interval that the report's own is set beside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from scipy.special import betaincinv, expit, logit, ndtri, stdtrit
from simulated_runs import Drawn, Floats

from triggerctl.report.crossed import Spread, limits, spread_of_rates, standard_error

LEVEL = 0.95
OURS = "**the report's**"
Limits = tuple[Floats, Floats]


def ours(found: Spread, weights: Floats) -> Limits:
    return limits(found, weights, LEVEL)


def ours_over_words(found: Spread, weights: Floats) -> Limits:
    return limits(found, weights, LEVEL, over_words=True)


def _student(found: Spread) -> float:
    return float(stdtrit(found.seeds - 1, 0.5 + LEVEL / 2))


def _effective(found: Spread, variance: Floats) -> tuple[Floats, Floats]:
    means, rows = found.means[:, 0], found.rows[:, 0]
    single = means * (1 - means)
    usable = (variance > 0) & (single > 0)
    return means, np.minimum(np.where(usable, single / np.where(usable, variance, 1), rows), rows)


def _wilson(means: Floats, rows: Floats, t: Floats | float) -> Limits:
    centre = (means + t**2 / (2 * rows)) / (1 + t**2 / rows)
    half = t * np.sqrt(means * (1 - means) / rows + t**2 / (4 * rows**2)) / (1 + t**2 / rows)
    return centre - half, centre + half


def _beta(means: Floats, rows: Floats, extra: float) -> Limits:
    """Clopper and Pearson's interval for `extra` 0, Jeffreys' for 0.5."""
    hits, other = means * rows, rows - means * rows
    tail = (1 - LEVEL) / 2
    low = betaincinv(np.maximum(hits + extra, 1e-9), other + (1 - extra), tail)
    high = betaincinv(hits + (1 - extra), np.maximum(other + extra, 1e-9), 1 - tail)
    return np.where(hits <= 1e-9, 0, low), np.where(other <= 1e-9, 1, high)


def rows_alone(found: Spread, _: Drawn) -> Limits:
    return _wilson(found.means[:, 0], found.rows[:, 0], float(ndtri(0.5 + LEVEL / 2)))


def student(found: Spread, _: Drawn) -> Limits:
    half = _student(found) * np.sqrt(found.by_seed[:, 0, 0])
    return found.means[:, 0] - half, found.means[:, 0] + half


def student_on_log_odds(found: Spread, _: Drawn) -> Limits:
    means, rows = found.means[:, 0], found.rows[:, 0]
    smooth = (means * rows + 0.5) / (rows + 1)
    single = smooth * (1 - smooth)
    half = _student(found) * np.sqrt(np.maximum(found.by_seed[:, 0, 0], single / rows)) / single
    low, high = expit(logit(smooth) - half), expit(logit(smooth) + half)
    return np.where(means <= 0, 0, np.minimum(low, means)), np.where(means >= 1, 1, np.maximum(high, means))


def wilson_effective(found: Spread, _: Drawn) -> Limits:
    return _wilson(*_effective(found, found.by_seed[:, 0, 0]), _student(found))


def clopper_pearson_effective(found: Spread, _: Drawn) -> Limits:
    means, rows = _effective(found, found.by_seed[:, 0, 0])
    return _beta(means, rows * (ndtri(0.5 + LEVEL / 2) / _student(found)) ** 2, 0)


def jeffreys_effective(found: Spread, _: Drawn) -> Limits:
    means, rows = _effective(found, found.by_seed[:, 0, 0])
    return _beta(means, rows * (ndtri(0.5 + LEVEL / 2) / _student(found)) ** 2, 0.5)


def bootstrap(found: Spread, drawn: Drawn) -> Limits:
    """Seeds, and rows within each, drawn anew; for a tenth of the repeats, as it is slow."""
    few, random = max(len(drawn.k) // 10, 1), np.random.default_rng(0)
    rates, rows = found.rates[:few, 0], drawn.n[:few, 0].sum(-1)
    chosen = random.integers(0, found.seeds, (few, 300, found.seeds))
    place = np.arange(few)[:, None, None]
    again = random.binomial(rows[place, chosen].astype(np.int64), rates[place, chosen]) / rows[place, chosen]
    return _percentiles(again.mean(-1))


def _percentiles(means: Floats) -> Limits:
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1)
    return low, high


def clustered(found: Spread, drawn: Drawn) -> tuple[Floats, Floats, Floats, Floats]:
    """Variances by seed and word, Cameron, Gelbach and Miller's, and Satterthwaite's degrees of freedom."""
    seeds, words = found.seeds, found.words[:, 0]
    by_seed, by_word = found.by_seed[:, 0, 0], found.by_word[:, 0, 0, 0]
    rows = drawn.n.sum(-1, keepdims=True)
    cells = (drawn.k - found.means[..., None, None] * drawn.n) / (rows * seeds)
    count = (drawn.n > 0).sum((-2, -1))[:, 0]
    by_cell = count / np.maximum(count - 1, 1) * (cells**2).sum((-2, -1))[:, 0]
    both = np.maximum(by_seed + by_word - by_cell, np.maximum(by_seed, by_word))
    square = by_seed**2 / (seeds - 1) + by_word**2 / np.maximum(words - 1, 1)
    freedom = np.where(square > 0, (by_seed + by_word) ** 2 / np.where(square > 0, square, 1), seeds - 1)
    return by_seed, by_word, both, np.maximum(freedom, np.minimum(seeds, words) - 1)


def seeds_only(found: Spread, _: Drawn) -> Limits:
    return limits(found, np.ones(1), LEVEL)


def two_way_wilson(found: Spread, drawn: Drawn) -> Limits:
    *_, both, _freedom = clustered(found, drawn)
    t = stdtrit(np.minimum(found.seeds, found.words[:, 0]) - 1, 0.5 + LEVEL / 2)
    return _wilson(*_effective(found, both), t)


def two_way_satterthwaite(found: Spread, drawn: Drawn) -> Limits:
    *_, both, freedom = clustered(found, drawn)
    return _wilson(*_effective(found, both), stdtrit(freedom, 0.5 + LEVEL / 2))


def two_way_clopper_pearson(found: Spread, drawn: Drawn) -> Limits:
    *_, both, _freedom = clustered(found, drawn)
    t = stdtrit(np.minimum(found.seeds, found.words[:, 0]) - 1, 0.5 + LEVEL / 2)
    means, rows = _effective(found, both)
    return _beta(means, rows * (ndtri(0.5 + LEVEL / 2) / t) ** 2, 0)


def bootstrap_both(found: Spread, drawn: Drawn) -> Limits:
    """Seeds and words drawn anew, each with everything that is theirs (Owen 2007); a tenth of the repeats."""
    few, random = max(len(drawn.k) // 10, 1), np.random.default_rng(0)
    k, n = drawn.k[:few, 0], drawn.n[:few, 0]
    words = n.shape[-1]
    of_seeds = random.multinomial(found.seeds, np.full(found.seeds, 1 / found.seeds), (few, 300))
    of_words = random.multinomial(words, np.full(words, 1 / words), (few, 300))
    hits = np.einsum("rsw,rbw->rbs", k, of_words)
    rows = np.einsum("rsw,rbw->rbs", n, of_words)
    return _percentiles((of_seeds * hits / np.maximum(rows, 1)).sum(-1) / found.seeds)


# Ways of making an interval for a difference. --------------------------------------------------------------


def paired_student(found: Spread, weights: Floats) -> Limits:
    total = (weights * found.means).sum(-1)
    variance = (found.by_seed * weights * weights[:, None]).sum((-2, -1))
    half = _student(found) * np.sqrt(np.maximum(variance, 0))
    return total - half, total + half


def paired_student_with_rows(found: Spread, weights: Floats) -> Limits:
    total = (weights * found.means).sum(-1)
    half = _student(found) * standard_error(found, weights)
    return total - half, total + half


def unpaired(found: Spread, weights: Floats) -> Limits:
    """Square-and-add of the two groups' own intervals, as if they shared no seed (Newcombe 1998)."""
    total = (weights * found.means).sum(-1)
    ends = [limits(_one(found, place), np.ones(1), LEVEL) for place in range(len(weights))]
    down = [
        w * ((low if w > 0 else high) - found.means[:, i]) for i, (w, (low, high)) in _each(weights, ends)
    ]
    up = [w * ((high if w > 0 else low) - found.means[:, i]) for i, (w, (low, high)) in _each(weights, ends)]
    return total - np.sqrt(sum(side**2 for side in down)), total + np.sqrt(sum(side**2 for side in up))


def _each(weights: Floats, ends: Sequence[Limits]) -> Iterator[tuple[int, tuple[float, Limits]]]:
    return enumerate(zip(weights.tolist(), ends, strict=True))


def _one(found: Spread, place: int) -> Spread:
    at = slice(place, place + 1)
    return Spread(
        found.rates[:, at],
        found.by_seed[:, at, at],
        found.by_word[:, :, at, at],
        found.by_pair[:, :, at, at],
        found.words,
        found.rows[:, at],
    )


ONE_RATE: Mapping[str, Callable[[Spread, Drawn], Limits]] = {
    OURS: lambda found, _: ours(found, np.ones(1)),
    "the report's, without counts": lambda found, _: _countless(found),
    "Wilson over all rows, as if independent": rows_alone,
    "Student over seeds": student,
    "Student over seeds on log odds": student_on_log_odds,
    "Wilson, effective rows": wilson_effective,
    "Clopper-Pearson, effective rows (Korn-Graubard)": clopper_pearson_effective,
    "Jeffreys, effective rows": jeffreys_effective,
    "bootstrap of seeds, then rows": bootstrap,
}
NEW_WORDS: Mapping[str, Callable[[Spread, Drawn], Limits]] = {
    OURS: lambda found, _: ours_over_words(found, np.ones(1)),
    "the interval over seeds, misread": seeds_only,
    "two-way clusters, Wilson, min(seeds, words) − 1": two_way_wilson,
    "two-way clusters, Wilson, Satterthwaite": two_way_satterthwaite,
    "two-way clusters, Clopper-Pearson, min(seeds, words) − 1": two_way_clopper_pearson,
    "bootstrap of seeds and words": bootstrap_both,
}
DIFFERENCE: Mapping[str, Callable[[Spread, Floats], Limits]] = {
    OURS: ours,
    "paired Student": paired_student,
    "paired Student, no narrower than rows make it": paired_student_with_rows,
    "square-and-add, as if unpaired": unpaired,
}


def _countless(found: Spread) -> Limits:
    """Where all seeds agree the report gives none: there it counts as covering nothing."""
    bare = spread_of_rates(found.rates)
    low, high = limits(bare, np.ones(1), LEVEL)
    alike = np.ptp(found.rates[:, 0], axis=-1) == 0
    return np.where(alike, np.nan, low), np.where(alike, np.nan, high)
