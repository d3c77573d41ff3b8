"""How little few seeds show, in words."""

from __future__ import annotations

from collections.abc import Sequence

from triggerctl.report.comparisons import Comparison
from triggerctl.report.power import DIFFERENCE, MOST_SEEDS, POWER
from triggerctl.report.rows import Group


def few_seeds(groups: Sequence[Group], comparisons: Sequence[Comparison]) -> list[str]:
    """A sentence an experiment: what difference its seeds would have found on its leak set, and how many
    seeds would settle one of 0.1. Experiments without a comparison, or with a seed each, have none."""
    experiments = {group.label: group.experiment for group in groups}
    several = len(set(experiments.values())) > 1
    sentences = []
    for experiment in dict.fromkeys(experiments.values()):
        own = [
            each
            for each in comparisons
            if each.set == each.leak_set and experiments.get(each.group) == experiment and len(each.seeds) > 1
        ]
        if own:
            sentences.append((f"{experiment}: " if several else "") + _sentence(own))
    return sentences


def _sentence(found: Sequence[Comparison]) -> str:
    by_need = sorted(found, key=lambda each: each.detectable or 0.0)
    easiest, hardest = by_need[0], by_need[-1]
    seeds = sorted({len(each.seeds) for each in found})
    count = " to ".join(str(number) for number in dict.fromkeys((seeds[0], seeds[-1])))
    finds = _range(_difference(easiest), easiest.group, _difference(hardest), hardest.group)
    needs = _range(_needed(easiest), easiest.group, _needed(hardest), hardest.group)
    if all((each.seeds_to_settle or 0) <= len(each.seeds) for each in found):
        settle = f"that settles one of {DIFFERENCE:g}"
    else:
        settle = f"to settle one of {DIFFERENCE:g} takes about {needs} seeds, if those differ as these do"
    return (
        f"What {count} seeds can show on {found[0].set}: a true difference of {finds} would be found with a "
        f"chance of {POWER:g} (before Holm's correction); {settle}."
    )


def _range(low: str, lowest: str, high: str, highest: str) -> str:
    return high if low == high else f"{low} ({lowest}) to {high} ({highest})"


def _difference(each: Comparison) -> str:
    size = each.detectable or 0.0
    return f"{max(size, 0.01):.2f}" if size <= 1 else "over 1"


def _needed(each: Comparison) -> str:
    needed = each.seeds_to_settle or 0
    return f"{needed}" if needed < MOST_SEEDS else f"over {MOST_SEEDS}"
