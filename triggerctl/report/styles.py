"""How a group looks and what it is called in every figure of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from triggerctl.report.drawing import DASHES, GREY, HUES, SYMBOLS, Hue, brief, plain
from triggerctl.report.rows import Group
from triggerctl.report.statistics import Interval

LONGEST_LINE = 40
"""Characters of a group's name that stand on one line."""
MOST_NAMES = 12
"""Groups that the trade-off plane has room to name; of more it shows most by the numbers they have in the
figure of accuracies."""

MOST_ROWS = 40
"""Groups that the figure of accuracies has room for."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a group looks in every figure of a report: hue and symbol say its strategy, the dash which of the
    strategy's groups it is; `number` where there are too many names."""

    hue: Hue
    symbol: str
    dash: str
    number: int | None


def styles(groups: Sequence[Group], baseline: str | None) -> dict[str, Style]:
    """Label → style; the strategy `baseline` is grey."""
    strategies = [s for s in dict.fromkeys(group.strategy for group in groups) if s != baseline]
    siblings: Counter[str] = Counter()
    result = {}
    for number, group in enumerate(groups, start=1):
        if group.strategy == baseline:
            hue, symbol = GREY, SYMBOLS[0]
        else:
            place = strategies.index(group.strategy)
            # Strategies that have to share a hue differ in their symbols.
            hue, symbol = HUES[place % len(HUES)], SYMBOLS[1 + (place + place // len(HUES)) % len(HUES)]
        result[group.label] = Style(
            hue,
            symbol,
            DASHES[siblings[group.strategy] % len(DASHES)],
            number if len(groups) > MOST_NAMES else None,
        )
        siblings[group.strategy] += 1
    return result


def one_seed_each(groups: Sequence[Group]) -> bool:
    return all(len(group.runs) == 1 for group in groups)


def interval_words(groups: Sequence[Group], drawn_as: str) -> str:
    """What the intervals of these groups are over, for a figure that draws them as bars or whiskers."""
    if not any(group.interval(name) for group in groups for name in group.wanted):
        return "no intervals: too few seeds, and rows not counted"
    if one_seed_each(groups):
        return f"{drawn_as}: 95 % interval over rows"
    single = any(len(group.runs) == 1 for group in groups)
    return f"{drawn_as}: 95 % interval over seeds" + (", of a single run over rows" if single else "")


def where(groups: Sequence[Group]) -> str:
    """The experiment, where a report has several."""
    return f"{plain(brief(groups[0].place, LONGEST_LINE))} · " if groups and groups[0].place else ""


def short_tag(group: Group, longest: int = LONGEST_LINE) -> str:
    """A group's name in a figure, at most `longest` characters, not yet escaped."""
    return brief(group.tag, longest)


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
