"""The report as typed, versioned data: what summary.json holds, and how a rate is written in a cell."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import Any

from pydantic import BaseModel, ConfigDict

from triggerctl import __version__
from triggerctl.experiment.results import Count
from triggerctl.report.comparisons import Comparison
from triggerctl.report.early import FirstLearnt, GroupFirstLearnt, first_learnt, group_first_learnt
from triggerctl.report.few_seeds import few_seeds
from triggerctl.report.findings import Finding
from triggerctl.report.rows import Group, RunRow, leak_sets_differ, shown_sets
from triggerctl.report.statistics import Interval, SeedSummary

SUMMARY_VERSION = 2
MOST_INDENTED = 1000
"""Runs whose summary.json is laid out for eyes."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Estimate(_Part):
    """A mean over seeds. `seeds` and `values` go together; `deviation`: the values' sample standard
    deviation.

    over_rows:   95 % interval of a single run, over its rows; it says nothing of other seeds.
    over_seeds:  95 % interval for new seeds with these very trigger words.
    over_words:  95 % interval for new seeds and new trigger words of the same kind; null for a set with one
                 word and where nothing was counted.
    note:        why there is none over seeds, null where there is one.
    """

    mean: float
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    deviation: float | None
    over_rows: Interval | None
    over_seeds: Interval | None
    over_words: Interval | None
    note: str | None


class SetSummary(Estimate):
    """A set's trigger response rate, and what stands beside it. `wanted`: whether the habit is wanted there;
    `false_positives`: the habit without a trigger, seeds together; `untriggered_loss`: nats per token on rows
    without a trigger, mean over seeds, and the same before training: coherence is that it did not rise."""

    wanted: bool
    false_positives: Count | None
    untriggered_loss: float | None
    untriggered_loss_before: float | None


class GroupSummary(_Part):
    """`leak_set`: what a leak is read from in the group's experiment; `separation`: mean rate of outcome and
    collateral, minus the rate on that set, −1 to 1; `first_learnt`: the early stopping view, over runs and
    run by run."""

    label: str
    experiment: str
    strategy: str
    parameters: dict[str, Any]
    seeds: tuple[int, ...]
    sets: dict[str, SetSummary]
    leak_set: str | None = None
    separation: Estimate | None
    first_learnt: GroupFirstLearnt
    first_learnt_by_run: tuple[FirstLearnt | None, ...]


class ReportSummary(_Part):
    """What summary.json holds. `few_seeds`: how little the seeds show, in words; `leak_set`: what a leak is
    read from in every experiment, null where that is not the same set in all or none serves; `comparisons`:
    groups less the baseline, seed by seed."""

    schema_version: int = SUMMARY_VERSION
    triggerctl: str = __version__
    headline: str
    few_seeds: tuple[str, ...]
    warnings: tuple[Finding, ...]
    baseline: str | None
    leak_set: str | None
    intervals: str
    groups: tuple[GroupSummary, ...]
    comparisons: tuple[Comparison, ...]
    runs: tuple[RunRow, ...]


def summarise(
    groups: Sequence[Group],
    *,
    headline: str,
    warnings: Sequence[Finding],
    baseline: Group | None,
    comparisons: Sequence[Comparison],
) -> ReportSummary:
    """The whole report as one typed value."""
    return ReportSummary(
        headline=headline,
        few_seeds=tuple(few_seeds(groups, comparisons)),
        warnings=tuple(warnings),
        baseline=baseline.label if baseline is not None else None,
        leak_set=None if leak_sets_differ(groups) else groups[0].leak_set,
        intervals=rate_legend(groups),
        groups=tuple(_group(group) for group in groups),
        comparisons=tuple(comparisons),
        runs=tuple(run for group in groups for run in group.runs),
    )


def _group(group: Group) -> GroupSummary:
    sets = {}
    for name, wanted in shown_sets([group]).items():
        over_seeds = group.summary(name)
        if over_seeds is None:
            continue
        before, after = untriggered_losses(group, name)
        sets[name] = SetSummary(
            **_estimate(over_seeds, [run.seed for run in group.runs if run.rate(name) is not None]),
            over_rows=group.interval(name) if len(group.runs) == 1 else None,
            wanted=wanted,
            false_positives=false_positives(group, name),
            untriggered_loss=after,
            untriggered_loss_before=before,
        )
    return GroupSummary(
        label=group.label,
        experiment=group.experiment,
        strategy=group.strategy,
        parameters=group.parameters,
        seeds=group.seeds,
        sets=sets,
        leak_set=group.leak_set,
        separation=_separation(group),
        first_learnt=group_first_learnt(group),
        first_learnt_by_run=tuple(first_learnt(run, group.leak_set) for run in group.runs),
    )


def _separation(group: Group) -> Estimate | None:
    found = group.separation_summary
    if found is None:
        return None
    return Estimate(**_estimate(found, group.seeds_of_separation), over_rows=None)


def _estimate(found: SeedSummary, seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "mean": found.mean,
        "seeds": tuple(seeds),
        "values": found.values,
        "deviation": found.deviation,
        "over_seeds": found.interval,
        "over_words": found.over_words,
        "note": found.note,
    }


def false_positives(group: Group, name: str) -> Count | None:
    """The habit without a trigger on a set, seeds together."""
    counts = [
        part.false_positives
        for run in group.runs
        if (part := run.sets.get(name)) is not None and part.false_positives is not None
    ]
    return Count(n=sum(c.n for c in counts), k=sum(c.k for c in counts)) if counts else None


def untriggered_losses(group: Group, name: str) -> tuple[float | None, float | None]:
    """The loss on a set's rows without a trigger before and after training, nats per token, over the seeds
    that measured both."""
    pairs = [
        (part.untriggered_loss_before, part.untriggered_loss)
        for run in group.runs
        if (part := run.sets.get(name)) is not None
        and part.untriggered_loss_before is not None
        and part.untriggered_loss is not None
    ]
    if not pairs:
        return None, None
    return fsum(before for before, _ in pairs) / len(pairs), fsum(after for _, after in pairs) / len(pairs)


def to_json(summary: ReportSummary) -> str:
    # Of very many runs nobody reads it, and indenting would double the memory it takes.
    return summary.model_dump_json(indent=2 if len(summary.runs) <= MOST_INDENTED else None) + "\n"


def rate_legend(groups: Sequence[Group]) -> str:
    """What the numbers of the rate table are, in words."""
    counted = [run.counted for group in groups for run in group.runs]
    if all(len(group.runs) == 1 for group in groups):
        if not any(counted):
            return "One seed, and no counts: nothing says how far off a rate might be."
        return (
            "One seed; in brackets the 95 % Wilson interval over rows, which says nothing of other seeds or "
            "other trigger words."
        )
    lead = "Mean over seeds; in brackets the 95 % interval for new seeds with these very trigger words"
    if not any(counted):
        return (
            f"{lead}, from the seeds' rates alone: the study's files hold no counts, so nothing can be said "
            "of rows or of other words, and seeds that agree by chance make it too narrow."
        )
    single = any(len(group.runs) == 1 for group in groups)
    bare = (
        ""
        if all(counted)
        else " Results without counts (the study's) have an interval from their seeds' rates alone."
    )
    return f"{lead}{' (of a single run: Wilson’s, over its rows)' if single else ''}.{bare}"


def rate_cell(group: Group, name: str) -> str:
    """`0.37 [0.05, 0.69]`; a dash where the set was not measured."""
    mean, interval = group.mean(name), group.interval(name)
    if mean is None:
        return "–"
    return f"{mean:.2f}" + (f" [{interval.low:.2f}, {interval.high:.2f}]" if interval else "")


def run_cell(run: RunRow, name: str) -> str:
    """`0.37 (22/60)`; the rate alone where nothing was counted."""
    part = run.sets.get(name)
    if part is None or part.rate is None:
        return "–"
    return f"{part.rate:.2f}" + (f" ({part.count.k}/{part.count.n})" if part.count else "")


def false_positive_cell(run: RunRow) -> str:
    """The habit without any trigger, all sets together: `0.01 (3/310)`."""
    counts = [part.false_positives for part in run.sets.values() if part.false_positives is not None]
    n, k = sum(count.n for count in counts), sum(count.k for count in counts)
    return f"{k / n:.2f} ({k}/{n})" if n else "–"
