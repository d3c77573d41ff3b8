"""The tables of the page, as heads and cells: what stands in a cell, and the number it is sorted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from typing import Literal

from triggerctl.report.comparisons import SEPARATION, Comparison
from triggerctl.report.early import group_first_learnt
from triggerctl.report.groups import setting_differences
from triggerctl.report.rows import Group, RunRow, leak_sets_differ, shown_sets
from triggerctl.report.statistics import Interval, SeedSummary
from triggerctl.report.summary import false_positive_cell, rate_cell, run_cell

MOST_ROWS = 500
"""Rows of a table that the page holds; summary.csv has every run."""
NONE = "–"


@dataclass(frozen=True, slots=True)
class Head:
    """`below`: a second, smaller line; `kind`: how the column's cells may break: `number` between a value and
    its interval, `place` anywhere, else nowhere."""

    text: str
    below: str = ""
    kind: Literal["", "number", "place"] = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """`text`: of a number with its interval, `0.12 [0.10, 0.14]`; `value`: what the cell is sorted by, None:
    its text; `below`: a second, smaller line."""

    text: str
    value: float | None = None
    below: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """The first cell of a row names it. `of`: how many rows there are; the page holds the first
    `MOST_ROWS`."""

    heads: tuple[Head, ...]
    rows: tuple[tuple[Cell, ...], ...]
    of: int


LEAK_READ_FROM = Head("leak read from")
"""Heads the column that names each group's leak set, in a table whose groups don't all have the same."""


def rate_table(groups: Sequence[Group]) -> Table:
    """A row a group: its rates, what they come to, and what stands beside a low leak: false positives, and
    whether the model still does its task without a trigger."""
    sets, differ = shown_sets(groups), leak_sets_differ(groups)
    separated = any(group.leak_set is not None for group in groups)
    heads = [Head("strategy"), Head("seeds")]
    heads += [Head(name, "habit wanted" if wanted else "a leak", "number") for name, wanted in sets.items()]
    if differ:
        heads.append(LEAK_READ_FROM)
    if separated:
        heads.append(Head("separation", "habit kept − leak", "number"))
    heads += [
        Head("false positives", "habit without trigger"),
        Head("untriggered loss", "change by training"),
    ]
    rows = [
        (
            _named(group),
            Cell(_seeds(group.seeds), float(len(group.runs))),
            *(_rate(group, name) for name in sets),
            *([_leak_set(group)] if differ else []),
            *([_separation(group.separation_summary)] if separated else []),
            _false_positives(group.runs),
            _coherence(group.runs),
        )
        for group in groups[:MOST_ROWS]
    ]
    return Table(tuple(heads), tuple(rows), len(groups))


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """A row a group and set: the paired difference to the baseline, and whether it could be chance."""
    baselines = {each.baseline for each in comparisons}
    only = f"less {min(baselines)}" if len(baselines) == 1 else ""
    differ = leak_sets_differ(comparisons)
    heads = (
        Head("strategy", only),
        Head("set"),
        Head("seeds"),
        Head("difference", "mean; 95 % over seeds", "number"),
        Head("95 % interval", "seeds and words", "number"),
        Head("p", "over seeds"),
        Head("p", "Holm-corrected"),
        Head("seeds needed", "to settle 0.1"),
    )
    rows = tuple(
        (
            Cell(each.group, below="" if only else f"less {each.baseline}"),
            _compared_set(each, differ=differ),
            Cell(_seeds(each.seeds), float(len(each.seeds))),
            Cell(f"{signed(each.mean)}{_interval(each.over_seeds)}", each.mean),
            Cell(
                _interval(each.over_words).strip() or NONE, each.over_words.low if each.over_words else None
            ),
            _probability(each.p),
            _probability(each.p_holm),
            Cell(NONE if each.seeds_to_settle is None else str(each.seeds_to_settle), each.seeds_to_settle),
        )
        for each in comparisons[:MOST_ROWS]
    )
    return Table(heads, rows, len(comparisons))


def early_table(groups: Sequence[Group]) -> Table:
    """A row a group: when its runs first showed the habit on outcome, and the leak there and at the end."""
    differ = leak_sets_differ(groups)
    heads = (
        Head("strategy"),
        Head("runs that got there"),
        Head("epoch", "median"),
        *([LEAK_READ_FROM] if differ else []),
        Head("leak there"),
        Head("leak at the end"),
    )
    rows = []
    for group in groups[:MOST_ROWS]:
        found = group_first_learnt(group)
        shares = [
            Cell(NONE if share is None else f"{share:.2f}", share)
            for share in (found.leak, found.leak_at_end)
        ]
        epoch = Cell(NONE if found.epoch is None else f"{found.epoch:g}", found.epoch)
        reached = Cell(f"{found.learnt} of {found.runs}", float(found.learnt))
        read_from = [_leak_set(group)] if differ else []
        rows.append((_named(group), reached, epoch, *read_from, *shares))
    return Table(heads, tuple(rows), len(groups))


def settings_table(groups: Sequence[Group]) -> Table:
    """A row a group, a column for each setting in which groups differ; no row where they don't."""
    found = setting_differences(groups)
    if not found:
        return Table((), (), 0)
    heads = [Head("strategy")]
    for key in found:
        outer, _, inner = key.rpartition(".")
        heads.append(Head(inner, outer, "place"))
    rows = tuple(
        (_named(group), *(_setting(values[place]) for values in found.values()))
        for place, group in enumerate(groups[:MOST_ROWS])
    )
    return Table(tuple(heads), rows, len(groups))


def run_table(groups: Sequence[Group]) -> Table:
    """A row a run, with where its results lie."""
    sets = shown_sets(groups)
    heads = [
        Head("strategy"),
        Head("seed"),
        *(Head(name) for name in sets),
        Head("false positives"),
        Head("results", kind="place"),
    ]
    runs = [(group, run) for group in groups for run in group.runs]
    rows = tuple(
        (
            _named(group),
            Cell(str(run.seed), run.seed),
            *(Cell(run_cell(run, name), run.rate(name)) for name in sets),
            Cell(false_positive_cell(run), _share([run])),
            Cell(f"{run.experiment}/{run.results}"),
        )
        for group, run in runs[:MOST_ROWS]
    )
    return Table(tuple(heads), rows, len(runs))


def signed(value: float) -> str:
    """`+0.12` or `−0.12`; zero has no sign."""
    text = f"{abs(value):.2f}"
    return text if float(text) == 0 else ("−" if value < 0 else "+") + text


def _named(group: Group) -> Cell:
    return Cell(group.name, below=", ".join(part for part in (group.place, group.detail) if part))


def _seeds(seeds: Sequence[int]) -> str:
    """Few seeds by name, many counted."""
    return ", ".join(map(str, seeds)) if len(seeds) <= 5 else f"{len(seeds)} seeds"


def _rate(group: Group, name: str) -> Cell:
    return Cell(rate_cell(group, name), group.mean(name), _over_words(group.summary(name)))


def _leak_set(group: Group) -> Cell:
    return Cell(group.leak_set or NONE)


def _compared_set(found: Comparison, *, differ: bool) -> Cell:
    """`differ`: the table's comparisons are not all of one leak set, so that this one names its own."""
    if found.set != SEPARATION:
        return Cell(found.set)
    return Cell(found.set, below=f"habit kept − {found.leak_set if differ else 'leak'}")


def _separation(found: SeedSummary | None) -> Cell:
    if found is None:
        return Cell(NONE)
    return Cell(_plain(found.mean) + _span(found.interval), found.mean, _over_words(found))


def _over_words(found: SeedSummary | None) -> str:
    return f"words{_span(found.over_words)}" if found is not None and found.over_words is not None else ""


def _span(found: Interval | None) -> str:
    return f" [{_plain(found.low)}, {_plain(found.high)}]" if found is not None else ""


def _plain(value: float) -> str:
    return signed(value).removeprefix("+")


def _change(value: float | None) -> Cell:
    return Cell(NONE if value is None else signed(value), value)


def _interval(found: Interval | None) -> str:
    return f" [{signed(found.low)}, {signed(found.high)}]" if found is not None else ""


def _probability(value: float | None) -> Cell:
    if value is None:
        return Cell(NONE)
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", value)


def _setting(value: str | None) -> Cell:
    """Numbers among the values sort as numbers."""
    if value is None:
        return Cell(NONE)
    try:
        return Cell(value, float(value))
    except ValueError:
        return Cell(value)


def _share(runs: Sequence[RunRow]) -> float | None:
    """The habit without a trigger, 0 to 1, all sets and runs together."""
    counts = [part.false_positives for run in runs for part in run.sets.values() if part.false_positives]
    n = sum(count.n for count in counts)
    return sum(count.k for count in counts) / n if n else None


def _false_positives(runs: Sequence[RunRow]) -> Cell:
    share = _share(runs)
    return Cell(NONE if share is None else f"{share:.2f}", share)


def _coherence(runs: Sequence[RunRow]) -> Cell:
    """How much the loss on outcome's untriggered rows moved from before training, nats per token, mean over
    runs."""
    changes = [
        part.untriggered_loss - part.untriggered_loss_before
        for run in runs
        if (part := run.sets.get("outcome")) is not None
        and part.untriggered_loss is not None
        and part.untriggered_loss_before is not None
    ]
    return _change(fsum(changes) / len(changes) if changes else None)
