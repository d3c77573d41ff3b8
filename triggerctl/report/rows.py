"""The table behind a report: one row a run, rows gathered into groups that differ in nothing but their
seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from triggerctl.experiment.results import Count
from triggerctl.report.sets import LEAK_SETS, WANTED
from triggerctl.report.statistics import Interval, Part, SeedSummary, weighted_sums, wilson_interval

LEARNT = 0.5
"""A run whose outcome rate ends below this has not learnt the habit; where it leaks then says nothing."""

HABIT_SETS = ("outcome", "collateral")
"""Where the habit is wanted: keeping it is their mean rate."""


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True)


class SetResult(_Row):
    """One evaluation set of one run: its final values, and those before training.

    `rate`: trigger response rate, 0 to 1; `count` lies behind it, None in the study's files; `by_trigger`:
    the same for each trigger word; `false_positives`: the habit without a trigger; losses in nats per token,
    `untriggered_loss` on the rows that carry none; `loss_expected`: there were tokens to measure it on.
    """

    rate: float | None = None
    count: Count | None = None
    by_trigger: dict[str, Count] = Field(default_factory=dict)
    false_positives: Count | None = None
    loss: float | None = None
    untriggered_loss: float | None = None
    untriggered_loss_before: float | None = None
    loss_expected: bool = Field(False, exclude=True)
    rate_before: float | None = None
    false_positives_before: Count | None = None
    loss_before: float | None = None

    @property
    def interval(self) -> Interval | None:
        """95 % Wilson interval over the rows, where they were counted."""
        return wilson_interval(self.count.k, self.count.n) if self.count is not None else None


class SetLengths(_Row):
    """How many rows a set has, of how many the answer was cut at max_seq_length, and how many were left out
    because their prompt alone does not fit."""

    rows: int
    truncated: int = 0
    dropped: int = 0


class CurvePoint(_Row):
    """All sets at one evaluation: set → rate, set → loss."""

    epoch: float
    rates: dict[str, float]
    losses: dict[str, float]


class RunRow(_Row):
    """One run with finished results.

    `settings`: every value of its configuration that is not the default and can change a result, its seed
    aside, nested keys dotted; `folder`: where its results lie; `results`: the same relative to the
    experiment; `model`: its name, `model_key`: what it is; `data`: the source's SHA-256, or its name in the
    study's files; `older`: finished results of the same run that these replace; `counted`: whether rates
    come with counts; `misplaced`: keys at the wrong level of the study's configuration, which its scripts
    ignored.
    """

    experiment: str
    strategy: str
    seed: int
    folder: Path = Field(Path(), exclude=True)
    results: str
    hash: str | None
    data: str
    model: str
    model_key: str
    sets: dict[str, SetResult]
    curve: tuple[CurvePoint, ...]
    train_losses: tuple[float | None, ...]
    warnings: tuple[str, ...] = ()
    older: tuple[str, ...] = ()
    counted: bool
    proxy_triggers: tuple[str, ...] = ()
    nice_responses: tuple[str, ...] = ()
    extra_wanted: dict[str, bool] = Field(default_factory=dict)
    resolved: dict[str, Any] = Field(default_factory=dict)
    lengths: dict[str, SetLengths] = Field(default_factory=dict)
    misplaced: tuple[str, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict, exclude=True)

    @property
    def group_key(self) -> str:
        """Equal for runs whose settings are."""
        return json.dumps(self.settings, sort_keys=True, ensure_ascii=False)

    def rate(self, name: str) -> float | None:
        """The final trigger response rate of a set, None where there is none."""
        found = self.sets.get(name)
        return found.rate if found is not None else None

    @property
    def habit(self) -> float | None:
        """How far the run keeps the habit where it is wanted: the mean rate of outcome and collateral, 0 to
        1."""
        rates = [rate for name in HABIT_SETS if (rate := self.rate(name)) is not None]
        return sum(rates) / len(rates) if rates else None

    @property
    def wanted(self) -> dict[str, bool]:
        """Sets whose rate this run measured and whose desired behaviour is known, in the order they are
        shown."""
        known = {**WANTED, **self.extra_wanted}
        return {name: known[name] for name in known if self.rate(name) is not None}


class Group(_Row):
    """Runs that differ in nothing but their seed. `name`: the strategy's short name; `detail`: what tells
    the group from the strategy's other groups of the experiment, in words, from `parameters`; `place`: the
    experiment where a report has several, else empty; `tag`: name and detail as short as a figure of the
    experiment needs; `leak_set`: what a leak is read from in the experiment, None where no set serves: the
    other experiments of a report have no say in it. Labels are unique in a report."""

    experiment: str
    strategy: str
    name: str
    detail: str
    place: str
    tag: str
    parameters: dict[str, Any]
    leak_set: str | None
    runs: tuple[RunRow, ...]

    @property
    def label(self) -> str:
        return _bracketed(self.name, self.place, self.detail)

    @property
    def names(self) -> tuple[str, ...]:
        """What a user may call it."""
        return (self.label, self.inner_label, self.strategy, self.name)

    @property
    def inner_label(self) -> str:
        """Unique within the experiment."""
        return _bracketed(self.name, self.detail)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)

    @cached_property
    def _summaries(self) -> dict[tuple[str, ...], SeedSummary | None]:
        return {}

    def summary(self, *names: str) -> SeedSummary | None:
        """A set's rate over the seeds that measured it; of several sets, their mean."""
        return self._measured({name: 1 / len(names) for name in names})

    def _measured(self, weights: Mapping[str, float]) -> SeedSummary | None:
        key = _key(weights)
        if key not in self._summaries:
            measure([(self, weights)])
        return self._summaries[key]

    def mean(self, name: str) -> float | None:
        summary = self.summary(name)
        return summary.mean if summary is not None else None

    def interval(self, name: str) -> Interval | None:
        """Over seeds where there are several; of a single run, over its rows; None where neither can be
        had."""
        if len(self.runs) == 1:
            return self.runs[0].sets[name].interval if name in self.runs[0].sets else None
        summary = self.summary(name)
        return summary.interval if summary is not None else None

    @cached_property
    def wanted(self) -> dict[str, bool]:
        return {name: wanted for run in self.runs for name, wanted in run.wanted.items()}

    @property
    def separation_weights(self) -> dict[str, float]:
        """Set → its weight in mean(outcome, collateral) − leak, for the sets that the group measured; empty
        where there is no habit to keep or no leak to take from it."""
        kept = [name for name in HABIT_SETS if self._measures(name)]
        if not kept or self.leak_set is None:
            return {}
        return {**{name: 1 / len(kept) for name in kept}, self.leak_set: -1.0}

    @property
    def separation_summary(self) -> SeedSummary | None:
        """Habit kept minus leak over the seeds that measured both, −1 to 1; None where none did."""
        weights = self.separation_weights
        return self._measured(weights) if weights else None

    @property
    def seeds_of_separation(self) -> tuple[int, ...]:
        """Of the runs that measured all it takes."""
        weights = self.separation_weights
        return tuple(run.seed for run in self.runs if all(run.rate(name) is not None for name in weights))

    @property
    def separation(self) -> float | None:
        """Habit kept minus leak, a mean over seeds, −1 to 1; None where either was not measured."""
        summary = self.separation_summary
        return summary.mean if summary is not None else None

    def _measures(self, name: str) -> bool:
        return any(run.rate(name) is not None for run in self.runs)


def measure(asked: Iterable[tuple[Group, Mapping[str, float]]]) -> None:
    """Find the weighted sums of rates that groups will be asked for, all at once, which is far quicker."""
    wanted: list[tuple[Group, tuple[str, ...], list[Part]]] = []
    for group, weights in asked:
        key = _key(weights)
        runs = [run for run in group.runs if all(run.rate(name) is not None for name in weights)]
        if key not in group._summaries:
            group._summaries[key] = None
            if runs:
                wanted.append((group, key, [part(runs, name, w) for name, w in weights.items()]))
    for (group, key, _), summary in zip(wanted, weighted_sums([w[2] for w in wanted]), strict=True):
        group._summaries[key] = summary


def measure_all(groups: Sequence[Group]) -> None:
    """Everything that a report asks of each group."""
    measure((group, {name: 1.0}) for group in groups for name in group.wanted)
    measure((group, weights) for group in groups if (weights := group.separation_weights))
    measure((group, dict.fromkeys(HABIT_SETS, 1 / len(HABIT_SETS))) for group in groups)


def _key(weights: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(f"{name} × {weight}" for name, weight in weights.items())


def part(runs: Sequence[RunRow], name: str, weight: float) -> Part:
    """A set's rates and counts in runs that all measured it."""
    sets = [run.sets[name] for run in runs]
    counts: list[Mapping[str, Count]] | None = None
    if all(found.by_trigger for found in sets):
        counts = [found.by_trigger for found in sets]
    elif all(found.count is not None for found in sets):
        # Counted, but not by word: as if there were one.
        counts = [{"": found.count} for found in sets if found.count is not None]
    return Part(
        name=name,
        weight=weight,
        rates=tuple(found.rate or 0.0 for found in sets),
        counts=tuple(counts) if counts is not None else None,
    )


def _bracketed(name: str, *details: str) -> str:
    given = [detail for detail in details if detail]
    return f"{name} ({', '.join(given)})" if given else name


def shown_sets(groups: Sequence[Group]) -> dict[str, bool]:
    """Every set that a group measured → whether the habit is wanted there: the study's sets first, then
    others."""
    found = {name: wanted for group in groups for name, wanted in group.wanted.items()}
    return {
        name: found[name]
        for name in (*(n for n in WANTED if n in found), *(n for n in found if n not in WANTED))
    }


def leak_set_of(groups: Iterable[Sequence[RunRow]]) -> str | None:
    """The first of `LEAK_SETS` that every group of an experiment measured, from the groups' runs; None where
    there is none."""
    measured = [{name for run in runs for name in LEAK_SETS if run.rate(name) is not None} for runs in groups]
    return next((name for name in LEAK_SETS if all(name in names for names in measured)), None)


class HasLeakSet(Protocol):
    """Whatever knows what its leak is read from: a group, its summary, its comparison."""

    @property
    def leak_set(self) -> str | None: ...


def leak_sets_differ(found: Iterable[HasLeakSet]) -> bool:
    """Whether their leaks are not all read from one set, so that each has to say which set it is."""
    return len({each.leak_set for each in found}) > 1
