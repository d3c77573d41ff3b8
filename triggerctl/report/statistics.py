"""How sure are we of a rate: within one run (k of n rows), over the seeds of a group, and over seeds and
trigger words.

Rows that share a trigger are not independent, so an interval of one run speaks of these very rows, one over
seeds of new seeds with these very words, and only one over seeds and words of words like these.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri

from triggerctl.experiment.results import Count
from triggerctl.report.crossed import (
    Floats,
    limits,
    p_of_zero,
    spread,
    spread_of_rates,
    standard_error,
)

LEVEL = 0.95
TOGETHER = 200
"""Sums computed at once: more would not be quicker, and the search for their p would take much memory."""


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
    over_words:  for new seeds and new words of the same kind, never narrower than `interval`; None with one
                 word, or without counts.
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


def weighted_sums(
    many: Sequence[Sequence[Part]], *, level: float = LEVEL, tested: bool = False
) -> list[SeedSummary]:
    """Of each of `many`: the mean over seeds of Σ weight · rate, with both intervals and, `tested`, its p.

    One seed has no spread: no interval. Seeds that all agree still might not, as few rows would hide it: with
    counts the interval is that of their rows, without there is none, for one of no width would claim
    certainty. Raises ValueError where there is no seed.
    """
    found: list[SeedSummary | None] = [None] * len(many)
    alike: defaultdict[tuple[object, ...], list[tuple[int, _Table]]] = defaultdict(list)
    for place, parts in enumerate(many):
        table = _table(parts)
        if isinstance(table, SeedSummary):
            found[place] = table
        else:
            alike[table.shape].append((place, table))
    # Sums of one shape are computed together: numpy takes as long for thousands as for one.
    for tables in alike.values():
        for first in range(0, len(tables), TOGETHER):
            some = tables[first : first + TOGETHER]
            made = _summaries([table for _, table in some], level, tested=tested)
            for (place, _), summary in zip(some, made, strict=True):
                found[place] = summary
    return [summary for summary in found if summary is not None]


@dataclass(frozen=True, slots=True)
class _Table:
    """A sum's parts as arrays, (parts, seeds, words); `rates` alone, (parts, seeds), without counts.
    `families`: which of the words belong to one set."""

    weights: tuple[float, ...]
    values: tuple[float, ...]
    rates: Floats
    k: Floats | None
    n: Floats | None
    families: tuple[int, ...]

    @property
    def shape(self) -> tuple[object, ...]:
        return (self.weights, len(self.values), self.families)


def _table(parts: Sequence[Part]) -> _Table | SeedSummary:
    """The arrays; at once the summary of what has no interval."""
    count = len(parts[0].rates)
    if not count:
        raise ValueError("a mean over seeds needs at least one seed")
    values = tuple(math.fsum(part.weight * part.rates[i] for part in parts) for i in range(count))
    if count == 1:
        note = "one seed: how much seeds differ is not known"
        return SeedSummary(values, values[0], None, None, None, None, None, note)
    rates = np.array([part.rates for part in parts])
    weights = tuple(part.weight for part in parts)
    if any(part.counts is None for part in parts):
        if max(values) == min(values):
            note = f"all {count} seeds gave the same value"
            return SeedSummary(values, values[0], 0.0, None, None, None, None, note)
        return _Table(weights, values, rates, None, None, ())
    names = list(dict.fromkeys(part.name for part in parts))
    columns: dict[tuple[str, str], int] = {}
    for part in parts:
        for row in part.counts or ():
            for word in row:
                columns.setdefault((part.name, word), len(columns))
    # In the order of their sets, so that tables of one shape have the same families.
    columns = {key: i for i, key in enumerate(sorted(columns, key=lambda key: names.index(key[0])))}
    k = np.zeros((len(parts), count, len(columns)))
    n = np.zeros_like(k)
    for i, part in enumerate(parts):
        for j, row in enumerate(part.counts or ()):
            for word, counted in row.items():
                place = columns[part.name, word]
                k[i, j, place], n[i, j, place] = counted.k, counted.n
    return _Table(weights, values, rates, k, n, tuple(names.index(name) for name, _ in columns))


def _summaries(tables: Sequence[_Table], level: float, *, tested: bool) -> Iterator[SeedSummary]:
    """Of tables of one shape."""
    first = tables[0]
    weights = np.array(first.weights)
    k, n = [table.k for table in tables], [table.n for table in tables]
    if first.families:
        spreads = spread(np.array(k), np.array(n), np.array(first.families, dtype=np.intp))
    else:
        spreads = spread_of_rates(np.array([table.rates for table in tables]))
    low, high = limits(spreads, weights, level)
    errors = standard_error(spreads, weights)
    ps = p_of_zero(spreads, weights) if tested else None
    several = [bool(words.size) and float(words.min()) > 1 for words in spreads.words]
    wide_low, wide_high = limits(spreads, weights, level, over_words=True) if any(several) else (low, high)
    least, most = sum(min(w, 0.0) for w in first.weights), sum(max(w, 0.0) for w in first.weights)

    def interval(low: float, high: float, mean: float, method: Literal["seeds", "words"]) -> Interval:
        return Interval(max(min(low, mean), least), min(max(high, mean), most), level, method)

    for i, table in enumerate(tables):
        values = table.values
        mean = min(max(math.fsum(values) / len(values), min(values)), max(values))
        yield SeedSummary(
            values,
            mean,
            math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)),
            interval(float(low[i]), float(high[i]), mean, "seeds"),
            interval(float(wide_low[i]), float(wide_high[i]), mean, "words") if several[i] else None,
            float(errors[i]),
            float(ps[i]) if ps is not None else None,
            None,
        )


def _score(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's interval for a share of n rows, z the normal quantile."""
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    # At the ends the formula gives exactly 0 and 1; rounding must not move them past the estimate.
    return (0.0 if share <= 0 else centre - half), (1.0 if share >= 1 else centre + half)
