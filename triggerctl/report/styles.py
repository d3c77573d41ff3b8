"""How a group looks and what it is called in every figure of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from triggerctl.report.drawing import DASHES, GREY, HUES, SYMBOLS, Hue, plain
from triggerctl.report.rows import Group
from triggerctl.report.statistics import Interval

LONGEST_LINE = 40
"""Characters of a group's name that stand on one line."""
MOST_NAMES = 12
"""Groups that the trade-off plane has room to name; of more it shows the numbers they have in the rates
figure."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a group looks in every figure of a report."""

    hue: Hue
    symbol: str
    dash: str
    number: int | None


def styles(groups: Sequence[Group], baseline: str | None) -> dict[str, Style]:
    """Label → style: a hue for each strategy, grey for the baseline's, a marker for each of a strategy's
    groups."""
    strategies = [s for s in dict.fromkeys(group.strategy for group in groups) if s != baseline]
    hues = {strategy: HUES[i % len(HUES)] for i, strategy in enumerate(strategies)}
    result = {}
    for number, group in enumerate(groups, start=1):
        siblings = [other.label for other in groups if other.strategy == group.strategy]
        # Strategies that had to share a hue differ in their markers too.
        turn = strategies.index(group.strategy) // len(HUES) if group.strategy in hues else 0
        place = siblings.index(group.label) + 3 * turn
        hue = hues.get(group.strategy, GREY)
        result[group.label] = Style(
            hue,
            SYMBOLS[place % len(SYMBOLS)],
            DASHES[place % len(DASHES)],
            number if len(groups) > MOST_NAMES else None,
        )
    return result


def one_seed_each(groups: Sequence[Group]) -> bool:
    return all(len(group.runs) == 1 for group in groups)


def where(groups: Sequence[Group]) -> str:
    """The experiment, where a report has several."""
    return f"{plain(groups[0].place)} · " if groups and groups[0].place else ""


def whisker(
    mean: float, interval: Interval, colour: str, *, thickness: float, cap: float
) -> dict[str, object]:
    """Plotly's error bar from an interval; `thickness` and `cap` in pixels."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [interval.high - mean],
        "arrayminus": [mean - interval.low],
        "color": colour,
        "thickness": thickness,
        "width": cap,
    }
