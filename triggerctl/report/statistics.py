"""How sure are we of a rate: within one run (k of n rows), and over the seeds of one strategy.

What this file does not know: trigger words. Rows that share a trigger are not independent, so an interval of
one run speaks of these very rows, and an interval over seeds of new seeds with these very triggers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import ndtri, stdtrit

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """`low` ≤ estimate ≤ `high` at confidence `level`; `method` says what varies: `wilson` rows, `t`
    seeds."""

    low: float
    high: float
    level: float
    method: Literal["wilson", "t"]


@dataclass(frozen=True, slots=True)
class SeedSummary:
    """The seeds' mean. `deviation` is the sample standard deviation (n − 1 below), None with one seed;
    `note` says in words why there is no interval, None where there is one."""

    seeds: int
    mean: float
    deviation: float | None
    interval: Interval | None
    note: str | None


def wilson_interval(k: int, n: int, level: float = LEVEL) -> Interval | None:
    """Score interval for a share, k of n rows; None where n is 0.

    Unlike the textbook interval it has a width at 0 of n and n of n, where most of our rates lie. Raises
    ValueError unless 0 ≤ k ≤ n. Source: Wilson (1927), Probable inference, J. Am. Stat. Assoc. 22, 209-212.
    """
    if not 0 <= k <= n:
        raise ValueError(f"k must lie between 0 and n, but k is {k} and n is {n}")
    if n == 0:
        return None
    z = float(ndtri(0.5 + level / 2))
    share = k / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    # At the ends the formula gives exactly 0 and 1; rounding must not move them past the estimate.
    low = 0.0 if k == 0 else centre - half
    high = 1.0 if k == n else centre + half
    return Interval(low, high, level, "wilson")


def mean_over_seeds(
    values: Sequence[float], *, level: float = LEVEL, bounds: tuple[float, float] | None = (0.0, 1.0)
) -> SeedSummary:
    """Mean of one value per seed with Student's interval, cut at `bounds` (rates can't leave 0 to 1).

    One seed has no spread, and seeds that all agree show none: both give no interval, and the note says so,
    for an interval of no width would claim certainty. Raises ValueError without values. Source: Student
    (1908), The probable error of a mean, Biometrika 6, 1-25.
    """
    if not values:
        raise ValueError("a mean over seeds needs at least one seed")
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return SeedSummary(1, mean, None, None, "one seed: how much seeds differ is not known")
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    if max(values) == min(values):
        return SeedSummary(count, values[0], 0.0, None, f"all {count} seeds gave the same value")
    half = float(stdtrit(count - 1, 0.5 + level / 2)) * deviation / math.sqrt(count)
    low, high = mean - half, mean + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return SeedSummary(count, mean, deviation, Interval(low, high, level, "t"), None)
