"""How many seeds it takes to find a difference that is there, and how little few seeds show."""

from __future__ import annotations

import math
from functools import lru_cache

from scipy.special import nctdtr, stdtrit

DIFFERENCE = 0.1
POWER = 0.8
LEVEL = 0.95
MOST_SEEDS = 10_000


def power(seeds: int, effect: float) -> float:
    """Chance that a paired t-test over `seeds` finds a true difference of `effect` standard deviations."""
    if seeds < 2:
        return 0.0
    bound = float(stdtrit(seeds - 1, 0.5 + LEVEL / 2))
    shift = effect * math.sqrt(seeds)
    # Far below its mean the distribution function comes out as nan where it is 0.
    below, above = (float(nctdtr(seeds - 1, shift, at)) for at in (-bound, bound))
    return 1.0 - (0.0 if math.isnan(above) else above) + (0.0 if math.isnan(below) else below)


def seeds_to_settle(deviation: float) -> int:
    """Fewest seeds with which a paired t-test finds a true difference of `DIFFERENCE` with a power of
    `POWER`, per-seed differences having this standard deviation; at least 2, at most `MOST_SEEDS`."""
    low, high = 1, 2
    while high < MOST_SEEDS and deviation * _effect(high) > DIFFERENCE:
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if deviation * _effect(middle) > DIFFERENCE else (low, middle)
    return high


def detectable(seeds: int, deviation: float) -> float | None:
    """Smallest true difference that a paired t-test over `seeds` finds with a power of `POWER`; None with
    one seed."""
    return deviation * _effect(seeds) if seeds > 1 else None


@lru_cache(maxsize=4096)
def _effect(seeds: int) -> float:
    """The difference, in standard deviations, that `seeds` find with a power of `POWER`."""
    if seeds < 2:
        return math.inf
    low, high = 0.0, 1.0
    while power(seeds, high) < POWER:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if power(seeds, middle) < POWER else (low, middle)
    return high
