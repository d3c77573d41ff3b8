"""How many seeds it takes to find a difference that is there."""

from __future__ import annotations

import math
from functools import lru_cache

from scipy.special import nctdtr, stdtrit

DIFFERENCE = 0.1
POWER = 0.8
MOST_SEEDS = 10_000


def power(seeds: int, effect: float, level: float = 0.95) -> float:
    """Chance that a paired t-test over `seeds` finds a true difference of `effect` standard deviations."""
    if seeds < 2:
        return 0.0
    bound = float(stdtrit(seeds - 1, 0.5 + level / 2))
    shift = effect * math.sqrt(seeds)
    below = float(nctdtr(seeds - 1, shift, -bound))
    return 1 - float(nctdtr(seeds - 1, shift, bound)) + (0.0 if math.isnan(below) else below)


def seeds_to_settle(deviation: float, difference: float = DIFFERENCE, wanted: float = POWER) -> int:
    """Fewest seeds with which a paired t-test finds a true `difference` with power `wanted`, where per-seed
    differences have the standard deviation `deviation`; `MOST_SEEDS` where that would not do. At least 2."""
    if deviation <= 0:
        return 2
    # Rounded up to 1 %, so that many comparisons share few searches.
    steps = math.floor(100 * math.log(difference / deviation))
    return _search(math.exp(steps / 100), wanted)


@lru_cache(maxsize=4096)
def _search(effect: float, wanted: float) -> int:
    low, high = 1, 2
    while high < MOST_SEEDS and power(high, effect) < wanted:
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, effect) >= wanted else (middle, high)
    return high
