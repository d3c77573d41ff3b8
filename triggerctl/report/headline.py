"""The report's first sentence: which strategy keeps the habit and leaks least, in words, with its numbers.

Written by rule. Of the groups that learnt the habit the one with the highest separation (habit kept minus
leak, both means over seeds) is named and set against the baseline on the seeds they share. It is the best of
those that were run, not the best there is: the sentence says how far off the difference might be, and what
chance alone could have done.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from triggerctl.report.comparisons import Comparison
from triggerctl.report.groups import named_group, namesake
from triggerctl.report.rows import HABIT_SETS, LEARNT, Group

DEFAULT_BASELINE = "naive"
KEEPS = 0.1
"""A rate that lies no further than this below the baseline's counts as kept."""
FEW = 5
"""With fewer seeds than this a small p is said to show little."""
FULLY = 0.7
"""A strategy keeps the habit when outcome and collateral both reach this, else part of it."""


def baseline_of(groups: Sequence[Group], asked: str | None) -> Group | None:
    """The group everything is compared with: `asked` by label, strategy or short name, else naive where it
    was run; of several the one with the most seeds. Raises InputError for a name that no group has."""
    if asked is None and not any(DEFAULT_BASELINE in group.names for group in groups):
        return None
    return named_group(groups, asked or DEFAULT_BASELINE, where="--baseline")


def headline(
    groups: Sequence[Group], asked: str | None = None, comparisons: Sequence[Comparison] = ()
) -> str:
    """One sentence an experiment; differences have intervals where `comparisons` holds them. Raises
    InputError for a baseline that no experiment has."""
    baseline = baseline_of(groups, asked)
    experiments = list(dict.fromkeys(group.experiment for group in groups))
    sentences = []
    for experiment in experiments:
        own = [group for group in groups if group.experiment == experiment]
        sentence = _sentence(own, namesake(own, baseline), comparisons)
        sentences.append(f"{experiment}: {sentence}" if len(experiments) > 1 else sentence)
    return "\n".join(sentences)


def _sentence(groups: Sequence[Group], baseline: Group | None, comparisons: Sequence[Comparison]) -> str:
    leak_set = groups[0].leak_set
    if leak_set is None:
        return "No set of unwanted triggers was measured in all runs, so there is no leak to speak of."
    learnt = [group for group in groups if (group.mean("outcome") or 0) >= LEARNT]
    if not learnt:
        return "No strategy learnt the habit: the outcome rate is below 0.5 at the end of every one."
    best = max(learnt, key=_order)
    if baseline is None or len(groups) == 1:
        return _alone(best, leak_set, among=len(groups))
    if baseline not in learnt:
        return (
            f"{baseline.inner_label} never learnt the habit (outcome {_number(baseline.mean('outcome'))}), "
            f"so it can't serve as the baseline. {_alone(best, leak_set, among=len(groups))}"
        )
    if best is baseline:
        return (
            f"No strategy does better than {baseline.inner_label}, which {_keeps(baseline)} "
            f"({_kept(baseline)}) and {_shows(baseline, leak_set)}."
        )
    found = [
        each
        for each in comparisons
        if (each.group, each.baseline, each.set) == (best.label, baseline.label, leak_set)
    ]
    return _against(best, baseline, leak_set, found[0] if found else None)


def _order(group: Group) -> float:
    return -1.0 if group.separation is None else group.separation


def _alone(group: Group, leak_set: str, *, among: int) -> str:
    lead = f"Of {among} groups {group.inner_label} does best: it" if among > 1 else group.inner_label
    return f"{lead} {_keeps(group)} ({_kept(group)}) and {_shows(group, leak_set)}."


def _shows(group: Group, leak_set: str) -> str:
    interval = group.interval(leak_set)
    over = "over these rows alone" if len(group.runs) == 1 else "for new seeds"
    around = (
        f", 95 % interval {interval.low:.2f} to {interval.high:.2f} {over}" if interval is not None else ""
    )
    return (
        f"shows it on {leak_set} in {_number(group.mean(leak_set))} of the rows "
        f"({_seeds(len(group.runs))}{around})"
    )


def _against(best: Group, baseline: Group, leak_set: str, found: Comparison | None) -> str:
    """Both on the seeds they share, so that the difference is one of strategies and not of data."""
    others = {run.seed: run for run in baseline.runs}
    leaks = [
        (ours, theirs)
        for run in best.runs
        if run.seed in others
        and (ours := run.rate(leak_set)) is not None
        and (theirs := others[run.seed].rate(leak_set)) is not None
    ]
    if leaks:
        ours, theirs = (fmean(pair[i] for pair in leaks) for i in (0, 1))
        over = _seeds(len(leaks)) + _agreement(leaks)
    else:
        ours, theirs = best.mean(leak_set) or 0.0, baseline.mean(leak_set) or 0.0
        over = "no seed in common"
    amount = f"{abs(theirs - ours):.2f} {'less' if ours <= theirs else 'more'}"
    lost = [
        f"{name} {_number(best.mean(name))} against {_number(baseline.mean(name))}"
        for name in HABIT_SETS
        if (best.mean(name) or 0) < (baseline.mean(name) or 0) - KEEPS
    ]
    opening = (
        f"gives up some of the habit ({'; '.join(lost)}) but"
        if lost
        else f"{_keeps(best)} ({_kept(best)}) and"
    )
    return (
        f"{best.inner_label} {opening} leaks {amount} than {baseline.inner_label} on {leak_set} "
        f"({ours:.2f} against {theirs:.2f}; {over}{_chance(found)})."
    )


def _chance(found: Comparison | None) -> str:
    """How far off the difference might be, and whether chance could have made it."""
    if found is None or found.over_seeds is None or found.p_holm is None:
        return ""
    p = "below 0.001" if found.p_holm < 0.001 else f"{found.p_holm:.2g}"
    seeds = len(found.seeds)
    few = 1 - found.over_seeds.level
    if found.p_holm > few:
        # The interval is that of this difference by itself and may leave 0 out where Holm does not.
        verdict = "chance is not excluded" + (" among so many" if (found.p or 0) <= few else "")
    elif seeds < FEW:
        verdict = f"though {seeds} seeds show little of how seeds differ"
    else:
        verdict = "chance alone would rarely do that"
    return (
        f"; 95 % interval of the difference {_signed(found.over_seeds.low)} to "
        f"{_signed(found.over_seeds.high)} for new seeds; p after Holm {p}, {verdict}"
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _agreement(leaks: Sequence[tuple[float, float]]) -> str:
    """In how many seeds the leak is the smaller one; nothing to say of a single seed."""
    less = sum(ours < theirs for ours, theirs in leaks)
    if len(leaks) == 1:
        return ""
    return ", less in each" if less == len(leaks) else f", less in {less} of them"


def _keeps(group: Group) -> str:
    rates = [rate for name in HABIT_SETS if (rate := group.mean(name)) is not None]
    return "keeps the habit" if min(rates, default=0.0) >= FULLY else "keeps part of the habit"


def _kept(group: Group) -> str:
    return ", ".join(
        f"{name} {_number(rate)}" for name in HABIT_SETS if (rate := group.mean(name)) is not None
    )


def _number(rate: float | None) -> str:
    return "not measured" if rate is None else f"{rate:.2f}"


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"
