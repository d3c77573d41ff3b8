"""How sure are we of a rate: within one run (k of n rows), over the seeds of a group, and over seeds and
trigger words.

Rows that share a trigger are not independent, so an interval of one run speaks of these very rows, one over
seeds of new seeds with these very words, and only one over seeds and words of words like these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri

from triggerctl.experiment.results import Count
from triggerctl.report.crossed import (
    Spread,
    limits,
    p_of_zero,
    spread,
    spread_of_rates,
    standard_error,
)

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
    """A mean over seeds, of a rate or of a weighted sum of rates.

    values:      one a seed.
    deviation:   their sample standard deviation (n − 1 below), None with one seed.
    interval:    for new seeds with these very trigger words; None with one seed.
    over_words:  for new seeds and new words of the same kind; None with one word, or without counts.
    error:       standard error of the mean over new seeds, never below what independent rows would make it.
    p:           two-sided, of a mean of 0 over new seeds, where it was asked for; it is below 1 − level just
                 where `interval` leaves 0 out.
    note:        says in words why there is no interval, None where there is one.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float | None
    interval: Interval | None
    over_words: Interval | None
    error: float | None
    p: float | None
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


def mean_over_seeds(values: Sequence[float], *, level: float = LEVEL) -> SeedSummary:
    """Mean of one share per seed, where nothing was counted. Raises ValueError without values."""
    return weighted_sum([Part("", 1.0, tuple(values), None)], level=level)


def weighted_sum(parts: Sequence[Part], *, level: float = LEVEL, tested: bool = False) -> SeedSummary:
    """The mean over seeds of Σ weight · rate with both intervals and, `tested`, its p.

    One seed has no spread: no interval. Seeds that all agree still might not, as few rows would hide it: with
    counts the interval is that of their rows, without there is none, for one of no width would claim
    certainty. Raises ValueError without seeds.
    """
    count = len(parts[0].rates)
    if not count:
        raise ValueError("a mean over seeds needs at least one seed")
    values = tuple(math.fsum(part.weight * part.rates[i] for part in parts) for i in range(count))
    mean = min(max(math.fsum(values) / count, min(values)), max(values))
    if count == 1:
        return _without(values, mean, None, "one seed: how much seeds differ is not known")
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    found = _spread(parts)
    if found is None:
        if max(values) == min(values):
            return _without(values, mean, 0.0, f"all {count} seeds gave the same value")
        found = spread_of_rates(np.array([part.rates for part in parts]))
    weights = np.array([part.weight for part in parts])
    least, most = sum(min(part.weight, 0) for part in parts), sum(max(part.weight, 0) for part in parts)

    def interval(method: Literal["seeds", "words"]) -> Interval:
        low, high = limits(found, weights, level, over_words=method == "words")
        return Interval(max(min(float(low), mean), least), min(max(float(high), mean), most), level, method)

    return SeedSummary(
        values,
        mean,
        deviation,
        interval("seeds"),
        interval("words") if found.words.size and found.words.min() > 1 else None,
        float(standard_error(found, weights)),
        float(p_of_zero(found, weights)) if tested else None,
        None,
    )


def _without(values: tuple[float, ...], mean: float, deviation: float | None, note: str) -> SeedSummary:
    return SeedSummary(values, mean, deviation, None, None, None, None, note)


def _spread(parts: Sequence[Part]) -> Spread | None:
    """What the counts say; None where a part has none for a seed."""
    names = list(dict.fromkeys(part.name for part in parts))
    columns: dict[tuple[str, str], int] = {}
    for part in parts:
        if part.counts is None or not all(any(c.n for c in row.values()) for row in part.counts):
            return None
        for row in part.counts:
            for word in row:
                columns.setdefault((part.name, word), len(columns))
    k = np.zeros((len(parts), len(parts[0].rates), len(columns)))
    n = np.zeros_like(k)
    for i, part in enumerate(parts):
        for j, row in enumerate(part.counts or ()):
            for word, count in row.items():
                place = columns[part.name, word]
                k[i, j, place], n[i, j, place] = count.k, count.n
    return spread(k, n, np.array([names.index(name) for name, _ in columns], dtype=np.intp))


def _score(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's interval for a share of n rows, z the normal quantile."""
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    # At the ends the formula gives exactly 0 and 1; rounding must not move them past the estimate.
    return (0.0 if share <= 0 else centre - half), (1.0 if share >= 1 else centre + half)
