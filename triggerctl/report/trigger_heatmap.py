"""Every trigger word by itself: how often each strategy shows the habit at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from triggerctl.experiment.results import Count
from triggerctl.report.drawing import (
    BLUE,
    INK,
    TEXT_WIDTH,
    UNWANTED_SHADES,
    VERMILLION,
    WANTED_SHADES,
    brief,
    lay_out,
    plain,
)
from triggerctl.report.panels import LONGEST_SET
from triggerctl.report.rows import Group
from triggerctl.report.scene import Scene
from triggerctl.report.styles import one_seed_each, where

MOST_COLUMNS = 12
MOST_TRIGGERS = 40
"""Words of one set; of more the highest rates are shown."""
LONGEST_TRIGGER = 22
LONGEST_PART = 14
"""Characters of each line of a group's name."""
ROW, HEAD, BOTTOM = 20, 34, 16
"""Pixels of a row, of a set's heading, below the last row."""
SMALLEST_CELL, LARGEST_CELL = 46, 110
ALL = "all"


Counts = tuple[Count | None, ...]
"""One a group, summed over its seeds; None where it has none."""


@dataclass(frozen=True, slots=True)
class Block:
    """One set: the counts of all its rows, and of those of each trigger word; `left_out` words have none
    here."""

    name: str
    wanted: bool
    total: Counts
    triggers: Mapping[str, Counts]
    left_out: int


def blocks(scene: Scene, groups: Sequence[Group]) -> tuple[Block, ...]:
    """The counts behind the figure; triggers by falling rate over all these groups, equal ones by name. Sets
    whose triggers no run counted are left out."""
    result = []
    for name, wanted in scene.sets.items():
        parts = [[run.sets[name] for run in group.runs if name in run.sets] for group in groups]
        words = dict.fromkeys(word for found in parts for part in found for word in part.by_trigger)
        counts = {
            word: tuple(
                _sum([part.by_trigger[word] for part in found if word in part.by_trigger]) for found in parts
            )
            for word in words
        }
        ranked = sorted(counts, key=lambda word: (-_rate(counts[word]), word))
        if ranked:
            total = tuple(_sum([part.count for part in found if part.count is not None]) for found in parts)
            kept = {word: counts[word] for word in ranked[:MOST_TRIGGERS]}
            result.append(Block(name, wanted, total, kept, len(ranked) - len(kept)))
    return tuple(result)


def _sum(counts: Sequence[Count]) -> Count | None:
    return Count(n=sum(c.n for c in counts), k=sum(c.k for c in counts)) if counts else None


def _rate(counts: Counts) -> float:
    n = sum(count.n for count in counts if count is not None)
    return sum(count.k for count in counts if count is not None) / n if n else 0.0


def triggers_figure(scene: Scene) -> go.Figure | None:
    """A row a trigger word, a column a group, in each cell rows with the habit of all rows with that trigger,
    summed over seeds; sets one below the other. None where no run counted its triggers."""
    drawn = scene.foremost(MOST_COLUMNS)
    found = blocks(scene, drawn)
    if not found:
        return None
    names = [[brief(part, LONGEST_PART) for part in group.tag.split(" · ")] for group in drawn]
    sizes = _sizes(found, names)
    figure = go.Figure()
    lay_out(
        figure,
        title="Which trigger words show the habit",
        subtitle=_subtitle(scene, found) + scene.left_out(drawn),
        width=sizes.width,
        height=sizes.height,
        top=sizes.top,
    )
    figure.update_layout(margin={"l": sizes.left, "r": sizes.right, "b": BOTTOM})
    ticks: dict[float, str] = {}
    y = 0.0
    for block in found:
        y -= HEAD
        _add_heading(figure, block, y + 9)
        rows = [("all rows", block.total), *((_word(word), row) for word, row in block.triggers.items())]
        heights = [y - ROW * (i + 0.5) for i in range(len(rows))]
        _add_cells(figure, block, drawn, rows, heights)
        ticks |= dict(zip(heights, [f"{plain(word)}" for word, _ in rows], strict=True))
        ticks[heights[0]] = f"<b>{rows[0][0]}</b>"
        y -= ROW * len(rows)
    figure.update_xaxes(
        side="top",
        range=[-0.5, len(drawn) - 0.5],
        tickvals=list(range(len(drawn))),
        ticktext=["<br>".join(plain(part) for part in parts) for parts in names],
        tickangle=-90 if sizes.upright else 0,
        tickfont={"size": 12, "color": INK},
        ticks="",
        showline=False,
        showgrid=False,
    )
    figure.update_yaxes(
        range=[y, 0],
        tickvals=list(ticks),
        ticktext=[f"{text} " for text in ticks.values()],
        tickfont={"size": 12, "color": INK},
        ticks="",
        showgrid=False,
    )
    return figure


@dataclass(frozen=True, slots=True)
class _Sizes:
    """In pixels: the whole figure, and what lies left of, right of and above its cells. `upright`: the
    columns are too narrow for their names to lie."""

    width: int
    height: int
    left: int
    right: int
    top: int
    upright: bool


def _sizes(found: Sequence[Block], names: Sequence[Sequence[str]]) -> _Sizes:
    """`names`: the lines of each column's name."""
    longest_count = max(len(_cell(count)) for block in found for row in _rows(block) for count in row)
    longest_word = max(len(word) for block in found for word in ("all rows", *map(_word, block.triggers)))
    longest_name = 7.0 * max(len(part) for parts in names for part in parts)
    left = max(round(7.0 * longest_word) + 14, 90)
    room = (TEXT_WIDTH - left - 14) / len(names)
    cell = min(max(room, SMALLEST_CELL, 6.4 * longest_count + 6), LARGEST_CELL)
    upright = longest_name > cell
    top = 62 + round(longest_name if upright else 16.0 * max(map(len, names)))
    rows = sum(HEAD + ROW * (1 + len(block.triggers)) for block in found)
    columns = round(cell * len(names))
    width = max(left + columns + 14, 480)
    return _Sizes(width, top + rows + BOTTOM, left, max(14, width - left - columns), top, upright)


def _subtitle(scene: Scene, found: Sequence[Block]) -> str:
    left_out = sum(block.left_out for block in found)
    return (
        where(scene.groups)
        + "in each cell: rows with the habit / rows with that trigger"
        + (" · " if one_seed_each(scene.groups) else ", all seeds together · ")
        + "stronger colour: higher rate · words by falling rate · blank: not measured"
        + (f" · {left_out} words with lower rates not shown" if left_out else "")
    )


def _rows(block: Block) -> list[Counts]:
    return [block.total, *block.triggers.values()]


def _word(word: str) -> str:
    return brief(word, LONGEST_TRIGGER)


def _cell(count: Count | None) -> str:
    return "" if count is None else f"{count.k}/{count.n}"


def _add_heading(figure: go.Figure, block: Block, y: float) -> None:
    hue, remark = (BLUE, "habit wanted") if block.wanted else (VERMILLION, "a leak")
    figure.add_annotation(
        xref="paper",
        x=0,
        y=y,
        xanchor="left",
        text=f"<b>{plain(brief(block.name, LONGEST_SET))}</b>: {remark}",
        showarrow=False,
        font={"size": 12.5, "color": hue.text},
    )


def _add_cells(
    figure: go.Figure,
    block: Block,
    groups: Sequence[Group],
    rows: Sequence[tuple[str, Counts]],
    heights: Sequence[float],
) -> None:
    shades = WANTED_SHADES if block.wanted else UNWANTED_SHADES
    counts = [row for _, row in rows]
    figure.add_heatmap(
        x=list(range(len(groups))),
        y=list(heights),
        z=[[None if count is None else count.rate for count in row] for row in counts],
        text=[[_cell(count) for count in row] for row in counts],
        texttemplate="%{text}",
        textfont={"size": 11.5, "color": INK},
        customdata=[
            [f"{plain(brief(group.tag, LONGEST_TRIGGER))}, {plain(word)}" for group in groups]
            for word, _ in rows
        ],
        hovertemplate="%{customdata}: %{z:.3f} (%{text})<extra></extra>",
        zmin=0,
        zmax=1,
        colorscale=[[0, shades[0]], [1, shades[1]]],
        showscale=False,
        xgap=2,
        ygap=2,
        hoverongaps=False,
        name=plain(block.name),
    )
