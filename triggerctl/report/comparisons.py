"""Each group of an experiment set against the baseline, on the seeds that both have: how much less it leaks,
how much of the habit it keeps, and whether that could be chance."""

from __future__ import annotations

from dataclasses import dataclass

from triggerctl.report.statistics import Interval

SEPARATION = "separation"
"""Stands for a set's name where mean(outcome, collateral) − leak is compared."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One group less its baseline on one set (or `SEPARATION`), seed by seed on the same rows.

    group, baseline:  labels.
    seeds:            those that both have, ascending; `differences`: one a seed, in their order, −1 to 1.
    mean:             the differences' mean.
    over_seeds:       95 % interval for new seeds with these very trigger words; None with one seed.
    over_words:       95 % interval for new seeds and new words of the same kind; None with one word or
                      without counts.
    p, p_holm:        two-sided p of no difference over new seeds with these words, alone and corrected (Holm)
                      over the experiment's groups on this set; None with one seed.
    seeds_to_settle:  seeds with which a true difference of 0.1 would be found with a power of 0.8; None where
                      the seeds' spread is not known.
    """

    group: str
    baseline: str
    set: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    over_seeds: Interval | None
    over_words: Interval | None
    p: float | None
    p_holm: float | None
    seeds_to_settle: int | None
