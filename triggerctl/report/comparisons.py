"""Each group of an experiment set against the baseline, on the seeds that both have: how much less it leaks,
how much of the habit it keeps, and whether that could be chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from triggerctl.report.groups import namesake
from triggerctl.report.power import detectable, seeds_to_settle
from triggerctl.report.rows import Group, RunRow, part, shown_sets
from triggerctl.report.statistics import Interval, Part, SeedSummary, weighted_sums

SEPARATION = "separation"
"""Stands for a set's name where mean(outcome, collateral) − leak is compared."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One group less its baseline on one set (or `SEPARATION`), seed by seed on the same rows.

    group, baseline:  labels.
    seeds:            those that both have, ascending; `differences`: one a seed, in their order, −1 to 1
                      (separation: −2 to 2).
    mean:             the differences' mean.
    over_seeds:       95 % interval for new seeds with these very trigger words; None with one seed.
    over_words:       95 % interval for new seeds and new words of the same kind; None with one word or
                      without counts.
    p, p_holm:        two-sided p of no difference over new seeds with these words, alone and corrected (Holm)
                      over the experiment's groups on this set; None with one seed.
    seeds_to_settle:  seeds with which a true difference of 0.1 would be found with a power of 0.8; None where
                      the seeds' spread is not known.
    detectable:       the smallest true difference that so many seeds would find with a power of 0.8.
    leak_set:         what a leak is read from in the experiment, and so what `SEPARATION` is taken from.
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
    detectable: float | None = None
    leak_set: str | None = None


def compare(groups: Sequence[Group], baseline: Group | None) -> tuple[Comparison, ...]:
    """Every group against the baseline's namesake in its experiment, on every set shown and on the
    separation: set by set within an experiment, experiments and groups in their order. Groups that share no
    seed with their baseline are left out."""
    families: list[list[_Pairing]] = []
    for experiment in dict.fromkeys(group.experiment for group in groups):
        own = [group for group in groups if group.experiment == experiment]
        against = namesake(own, baseline)
        if against is None:
            continue
        for name in (*shown_sets(own), *([SEPARATION] if against.leak_set is not None else [])):
            paired = [_paired(group, against, name) for group in own if group is not against]
            families.append([pairing for pairing in paired if pairing is not None])
    summaries = iter(weighted_sums([pairing.parts for family in families for pairing in family], tested=True))
    return tuple(
        comparison
        for family in families
        for comparison in _corrected([_comparison(pairing, next(summaries)) for pairing in family])
    )


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for being the best of many. Source: Holm (1979), A simple sequentially rejective
    multiple test procedure, Scand. J. Stat. 6, 65-70."""
    result = [1.0] * len(values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        result[place] = highest
    return result


@dataclass(frozen=True, slots=True)
class _Pairing:
    group: str
    baseline: str
    set: str
    leak_set: str | None
    seeds: tuple[int, ...]
    parts: list[Part]


def _paired(group: Group, baseline: Group, name: str) -> _Pairing | None:
    """What both measured with the same seeds; None where that is nothing."""
    weights: Mapping[str, float] = {name: 1.0}
    if name == SEPARATION:
        weights = group.separation_weights
        if not weights or weights != baseline.separation_weights:
            return None
    ours, theirs = _by_seed(group, weights), _by_seed(baseline, weights)
    seeds = tuple(sorted(set(ours) & set(theirs)))
    if not seeds:
        return None
    parts = [
        part([runs[seed] for seed in seeds], set_name, sign * weight)
        for sign, runs in ((1.0, ours), (-1.0, theirs))
        for set_name, weight in weights.items()
    ]
    return _Pairing(group.label, baseline.label, name, group.leak_set, seeds, parts)


def _comparison(pairing: _Pairing, summary: SeedSummary) -> Comparison:
    deviation = summary.error * math.sqrt(summary.seeds) if summary.error is not None else None
    return Comparison(
        group=pairing.group,
        baseline=pairing.baseline,
        set=pairing.set,
        seeds=pairing.seeds,
        differences=summary.values,
        mean=summary.mean,
        over_seeds=summary.interval,
        over_words=summary.over_words,
        p=summary.p,
        p_holm=summary.p,
        seeds_to_settle=seeds_to_settle(deviation) if deviation is not None else None,
        detectable=detectable(summary.seeds, deviation) if deviation is not None else None,
        leak_set=pairing.leak_set,
    )


def _by_seed(group: Group, names: Mapping[str, float]) -> dict[int, RunRow]:
    return {run.seed: run for run in group.runs if all(run.rate(name) is not None for name in names)}


def _corrected(found: Sequence[Comparison]) -> list[Comparison]:
    tested = [comparison.p for comparison in found if comparison.p is not None]
    corrected = iter(holm(tested))
    return [
        replace(comparison, p_holm=next(corrected)) if comparison.p is not None else comparison
        for comparison in found
    ]
