"""What stopping early would have given: the first evaluation with the habit learnt, and the leak there."""

from __future__ import annotations

from math import fsum
from statistics import median

from pydantic import BaseModel, ConfigDict

from triggerctl.report.rows import Group, RunRow

LEARNT_WELL = 0.9
"""The outcome rate from which on training could have stopped."""


class FirstLearnt(BaseModel):
    """The first evaluation with an outcome rate of `LEARNT_WELL` or more: its epoch, that rate, the rate on
    the leak set there, None where it was not measured then."""

    model_config = ConfigDict(frozen=True)

    epoch: float
    outcome: float
    leak: float | None


class GroupFirstLearnt(BaseModel):
    """Over a group's `runs`: how many `learnt` it, the median of their first epochs, their mean leak there
    and, to set it against, at their end."""

    model_config = ConfigDict(frozen=True)

    runs: int
    learnt: int
    epoch: float | None
    leak: float | None
    leak_at_end: float | None


def first_learnt(run: RunRow, leak_set: str | None) -> FirstLearnt | None:
    """None where the run never got there."""
    for point in run.curve:
        outcome = point.rates.get("outcome")
        if outcome is not None and outcome >= LEARNT_WELL:
            leak = point.rates.get(leak_set) if leak_set is not None else None
            return FirstLearnt(epoch=point.epoch, outcome=outcome, leak=leak)
    return None


def group_first_learnt(group: Group) -> GroupFirstLearnt:
    leak_set = group.leak_set
    found = [(run, first) for run in group.runs if (first := first_learnt(run, leak_set)) is not None]
    pairs = [
        (first.leak, end)
        for run, first in found
        if first.leak is not None and leak_set is not None and (end := run.rate(leak_set)) is not None
    ]
    return GroupFirstLearnt(
        runs=len(group.runs),
        learnt=len(found),
        epoch=median(first.epoch for _, first in found) if found else None,
        leak=fsum(leak for leak, _ in pairs) / len(pairs) if pairs else None,
        leak_at_end=fsum(end for _, end in pairs) / len(pairs) if pairs else None,
    )
