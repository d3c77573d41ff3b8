"""How sure are we of a rate: within one run (k of n rows), over the seeds of a group, and over seeds and
trigger words.

Rows that share a trigger are not independent, so an interval of one run speaks of these very rows, one over
seeds of new seeds with these very words, and only one over seeds and words of words like these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from triggerctl.experiment.results import Count
from triggerctl.report.crossed import Spread, spread

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """`low` ≤ estimate ≤ `high` at confidence `level`; `method` says what varies: `wilson` rows, `seeds`
    seeds, `words` seeds and trigger words."""

    low: float
    high: float
    level: float
    method: Literal["wilson", "seeds", "words"]


@dataclass(frozen=True, slots=True)
class Part:
    """One group's rates on one evaluation set, a term of a weighted sum.

    name:    of the set: parts of one name have the same words.
    rates:   one a seed, 0 to 1.
    counts:  word → rows and hits, one mapping a seed; None without counts.
    """

    name: str
    weight: float
    rates: tuple[float, ...]
    counts: tuple[Mapping[str, Count], ...] | None


@dataclass(frozen=True, slots=True)
class SeedSummary:
    """The seeds' mean.

    values:     one a seed.
    deviation:  sample standard deviation (n − 1 below), None with one seed.
    interval:   for new seeds with these very trigger words.
    over_words: for new seeds and new words of the same kind; None with one word, or without counts.
    freedom:    degrees of freedom of `interval`.
    error:      the standard error behind `interval`, never below what rows alone would give.
    note:       says in words why there is no interval, None where there is one.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float | None
    interval: Interval | None
    over_words: Interval | None
    error: float | None
    note: str | None

    @property
    def seeds(self) -> int:
        return len(self.values)


def wilson_interval(k: int, n: int, level: float = LEVEL) -> Interval | None:
    """Score interval for a share, k of n rows; None where n is 0.

    Unlike the textbook interval it has a width at 0 of n and n of n, where most of our rates lie. Raises
    ValueError unless 0 ≤ k ≤ n. Source: Wilson (1927), Probable inference, J. Am. Stat. Assoc. 22, 209-212.
    """
    if not 0 <= k <= n:
        raise ValueError(f"k must lie between 0 and n, but k is {k} and n is {n}")
    if n == 0:
        return None
    low, high = _score(k / n, n, float(ndtri(0.5 + level / 2)))
    return Interval(low, high, level, "wilson")


def mean_over_seeds(
    values: Sequence[float], *, level: float = LEVEL, bounds: tuple[float, float] = (0.0, 1.0)
) -> SeedSummary:
    """Mean of one value per seed with an interval over seeds, within `bounds`, where nothing was counted.

    One seed has no spread, and seeds that all agree show none: both give no interval, and the note says so,
    for an interval of no width would claim certainty. Raises ValueError without values.
    """
    return weighted_sum([Part("", 1.0, tuple(values), None)], level=level, bounds=bounds)


def weighted_sum(
    parts: Sequence[Part], *, level: float = LEVEL, bounds: tuple[float, float] = (0.0, 1.0)
) -> SeedSummary:
    """The mean over seeds of Σ weight · rate, with both intervals. Raises ValueError without seeds."""
    values = tuple(
        math.fsum(part.weight * part.rates[i] for part in parts) for i in range(len(parts[0].rates))
    )
    if not values:
        raise ValueError("a mean over seeds needs at least one seed")
    count = len(values)
    mean = min(max(math.fsum(values) / count, min(values)), max(values))
    if count == 1:
        return SeedSummary(
            values, mean, None, None, None, None, "one seed: how much seeds differ is not known"
        )
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    variance = deviation**2 / count
    shown = _spread(parts)
    if shown is None and max(values) == min(values):
        note = f"all {count} seeds gave the same value"
        return SeedSummary(values, values[0], 0.0, None, None, None, note)
    least = float(shown.by_rows) if shown is not None else 0.0
    error = math.sqrt(max(variance, least))
    low, high = _bounds(mean, error**2, count - 1, level, bounds)
    words = None
    if shown is not None and _several_words(parts):
        around = max(float(shown.by_both), least)
        words = Interval(*_bounds(mean, around, float(shown.freedom), level, bounds), level, "words")
    return SeedSummary(values, mean, deviation, Interval(low, high, level, "seeds"), words, error, None)


def _several_words(parts: Sequence[Part]) -> bool:
    """Whether every set has two words or more, so that it shows how much words differ."""
    return all(len({word for row in part.counts or () for word in row}) > 1 for part in parts)


def _spread(parts: Sequence[Part]) -> Spread | None:
    """What the counts say; None where a part has none for a seed."""
    tables = [part.counts for part in parts]
    names = list(dict.fromkeys(part.name for part in parts))
    columns: dict[tuple[str, str], int] = {}
    for part in parts:
        if part.counts is None or not all(sum(c.n for c in row.values()) for row in part.counts):
            return None
        for row in part.counts:
            for word in row:
                columns.setdefault((part.name, word), len(columns))
    k = np.zeros((len(parts), len(parts[0].rates), len(columns)))
    n = np.zeros_like(k)
    for i, (part, table) in enumerate(zip(parts, tables, strict=True)):
        for j, row in enumerate(table or ()):
            for word, count in row.items():
                place = columns[part.name, word]
                k[i, j, place], n[i, j, place] = count.k, count.n
    families = np.array([names.index(name) for name, _ in columns], dtype=np.intp)
    return spread(k, n, np.array([part.weight for part in parts]), families)


def _bounds(
    mean: float, variance: float, freedom: float, level: float, bounds: tuple[float, float]
) -> tuple[float, float]:
    """Shares by Wilson's formula with as many rows as would give the variance, else Student's."""
    t = _student(freedom, level)
    if bounds == (0.0, 1.0):
        inner = min(max(mean, 0.01), 0.99)
        return _score(mean, inner * (1 - inner) / variance, t)
    half = t * math.sqrt(variance)
    return max(mean - half, bounds[0]), min(mean + half, bounds[1])


def _score(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's interval for a share of n rows (any positive number), z normal or t."""
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    # At the ends the formula gives exactly 0 and 1; rounding must not move them past the estimate.
    low = 0.0 if share <= 0 else max(min(centre - half, share), 0.0)
    high = 1.0 if share >= 1 else min(max(centre + half, share), 1.0)
    return low, high


@lru_cache(maxsize=4096)
def _student(freedom: float, level: float) -> float:
    return float(stdtrit(freedom, 0.5 + level / 2))


def p_of_none(summary: SeedSummary) -> float | None:
    """Two-sided p of a mean of 0 over new seeds, by Student's t; None where the spread is not known."""
    if summary.error is None:
        return None
    return float(2 * stdtr(summary.seeds - 1, -abs(summary.mean) / summary.error))
