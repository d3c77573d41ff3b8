"""The trade-off plane: what each strategy keeps of the habit, against what it lets leak."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import plotly.graph_objects as go

from triggerctl.report.drawing import COLUMN_WIDTH, INK, MUTED, PAPER, TEXT_WIDTH, brief, lay_out, plain
from triggerctl.report.labels import CHARACTER, Box, Segment, around
from triggerctl.report.pareto import frontier, parameter_paths
from triggerctl.report.rows import HABIT_SETS, Group
from triggerctl.report.scene import Scene
from triggerctl.report.statistics import Interval
from triggerctl.report.styles import (
    LONGEST_LINE,
    MOST_NAMES,
    Style,
    interval_words,
    one_seed_each,
    short_tag,
    where,
    whisker,
)

FEW = 6
"""Groups whose names fit a narrow figure."""
MOST_MARKS = 60
"""Groups that are shown at all."""
FRONTIER = "Pareto frontier"
EDGE = 0.05
"""Room around the plane, of what its axes show."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """One group in the plane: means over seeds, their intervals, and each seed as (seed, leak, habit)."""

    group: Group
    look: Style
    leak: float
    habit: float
    across: Interval | None
    up: Interval | None
    seeds: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True, slots=True)
class _Plane:
    """What the axes show, and how large that is: pixels of the plane."""

    left: float
    right: float
    bottom: float
    top: float
    width: float
    height: float

    def pixels(self, leak: float, habit: float) -> tuple[float, float]:
        """From the lower left corner."""
        return (
            (leak - self.left) / (self.right - self.left) * self.width,
            (habit - self.bottom) / (self.top - self.bottom) * self.height,
        )

    def line(self, start: tuple[float, float], end: tuple[float, float]) -> Segment:
        """In pixels."""
        return (*self.pixels(*start), *self.pixels(*end))


def trade_off_figure(scene: Scene) -> go.Figure | None:
    """Habit kept (mean rate of outcome and collateral) against leak (rate on the leak set), the upper left
    corner being the aim.

    Large marks are means over seeds with their intervals both ways, small ones each seed; a line joins the
    groups of a strategy that differ in one parameter; a dotted one borders what no strategy reaches. None
    where no leak was measured.
    """
    if scene.leak_set is None:
        return None
    drawn = scene.foremost(MOST_MARKS)
    marks = {
        group.label: mark for group in drawn if (mark := _mark(scene, group, scene.leak_set)) is not None
    }
    if not marks:
        return None
    best = frontier({label: (mark.leak, mark.habit) for label, mark in marks.items()})
    paths = [
        [marks[group.label] for group in path]
        for path in parameter_paths([mark.group for mark in marks.values()])
    ]
    ends = {mark.group.label for path in paths for mark in (path[0], path[-1])}
    crowded = len(marks) > MOST_NAMES
    named = set(marks) if not crowded else {*best, *ends, *([scene.baseline.label] if scene.baseline else [])}
    figure = go.Figure()
    width = COLUMN_WIDTH if len(marks) <= FEW else TEXT_WIDTH
    lay_out(
        figure,
        title="What each strategy keeps, and what it lets leak",
        subtitle=_subtitle(scene, drawn, paths=bool(paths), crowded=crowded),
        width=width,
        height=round(0.86 * width),
        top=68,
    )
    figure.update_layout(margin={"l": 66, "r": 22, "b": 56})
    detailed = [mark for label, mark in marks.items() if label in named]
    plane = _plane(figure, scene.leak_set, detailed, list(marks.values()))
    steps = _staircase([(marks[label].leak, marks[label].habit) for label in best], plane)
    lines = _add_line(figure, plane, steps, MUTED, dash="dot", name=FRONTIER)
    for path in paths:
        points = [(mark.leak, mark.habit) for mark in path]
        name = f"path of {plain(short_tag(path[0].group))}"
        lines += _add_line(figure, plane, points, path[0].look.hue.mark, dash="solid", name=name)
    for mark in detailed:
        _add_seeds(figure, mark)
        _add_arms(figure, mark)
        lines += _arms(mark, plane)
    for label, mark in marks.items():
        _add_mark(figure, mark, baseline=scene.baseline is not None and label == scene.baseline.label)
    box = _name_frontier(figure, steps, plane, list(marks.values()))
    names = {label: _name(scene, mark, paths, full=label in named) for label, mark in marks.items()}
    _add_names(figure, [(mark, names[label]) for label, mark in marks.items()], plane, lines, box)
    return figure


def _mark(scene: Scene, group: Group, leak_set: str) -> _Mark | None:
    seeds = tuple(
        (run.seed, leak, habit)
        for run in group.runs
        if (leak := run.rate(leak_set)) is not None and (habit := run.habit) is not None
    )
    if not seeds:
        return None
    leak, habit = (sum(seed[i] for seed in seeds) / len(seeds) for i in (1, 2))
    return _Mark(
        group,
        scene.looks[group.label],
        leak,
        habit,
        group.interval(leak_set),
        habit_interval(group),
        seeds if len(seeds) > 1 else (),
    )


def habit_interval(group: Group) -> Interval | None:
    """Of the mean rate of outcome and collateral: the mean of their limits, wide enough whether or not the
    two rise and fall together. Where all seeds agree on one of the two, that one has no width."""
    found = [(mean, group.interval(name)) for name in HABIT_SETS if (mean := group.mean(name)) is not None]
    known = [interval for _, interval in found if interval is not None]
    if not known:
        return None
    low = sum(interval.low if interval else mean for mean, interval in found) / len(found)
    high = sum(interval.high if interval else mean for mean, interval in found) / len(found)
    return replace(known[0], low=low, high=high)


def _subtitle(scene: Scene, drawn: Sequence[Group], *, paths: bool, crowded: bool) -> str:
    one = one_seed_each(scene.groups)
    return (
        where(scene.groups)
        + "the upper left corner is best · "
        + ("one seed" if one else "large: mean over seeds; small: each seed")
        + f" · bars: {interval_words(scene.groups)}"
        + (" · lines join a strategy's groups in the order of a parameter" if paths else "")
        + (" · numbers: as in the figure of accuracies" if crowded else "")
        + scene.left_out(drawn)
    )


def _plane(figure: go.Figure, leak_set: str, detailed: Sequence[_Mark], marks: Sequence[_Mark]) -> _Plane:
    """Axes from 0 leak and up to 1 habit kept, as far as there is anything to see, in tenths."""
    leaks = [mark.leak for mark in marks] + [leak for mark in detailed for _, leak, _ in mark.seeds]
    leaks += [mark.across.high for mark in detailed if mark.across is not None]
    habits = [mark.habit for mark in marks] + [habit for mark in detailed for _, _, habit in mark.seeds]
    habits += [mark.up.low for mark in detailed if mark.up is not None]
    across, down = _tenths(max(leaks)), _tenths(1 - min(habits))
    plane = _Plane(
        -EDGE * across,
        (1 + EDGE) * across,
        1 - (1 + EDGE) * down,
        1 + EDGE * down,
        figure.layout.width - figure.layout.margin.l - figure.layout.margin.r,
        figure.layout.height - figure.layout.margin.t - figure.layout.margin.b,
    )
    figure.update_xaxes(
        title_text=f"leak: trigger response rate on {leak_set}",
        range=[plane.left, plane.right],
        tick0=0,
        dtick=_step(across),
        showgrid=True,
    )
    figure.update_yaxes(
        title_text="habit kept: mean rate of outcome and collateral",
        range=[plane.bottom, plane.top],
        tick0=0,
        dtick=_step(down),
    )
    return plane


def _tenths(span: float) -> float:
    """The next tenth that holds a span, from 0.2 to 1."""
    return min(max(math.ceil(10 * span - 1e-6) / 10, 0.2), 1.0)


def _step(span: float) -> float:
    return 0.05 if span <= 0.3 else 0.1 if span <= 0.6 else 0.2


def _staircase(points: Sequence[tuple[float, float]], plane: _Plane) -> list[tuple[float, float]]:
    """The corners of the border between what some group reaches and what none does, least leak first; equal
    points are one corner."""
    corners = [(points[0][0], plane.bottom)]
    for leak, habit in points:
        corners += [(leak, corners[-1][1]), (leak, habit)]
    return [*corners, (plane.right, corners[-1][1])]


def _add_line(
    figure: go.Figure,
    plane: _Plane,
    points: Sequence[tuple[float, float]],
    colour: str,
    *,
    dash: str,
    name: str,
) -> list[Segment]:
    """Draws a line through the points and returns its parts, for names to keep away from."""
    figure.add_scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="lines",
        name=name,
        line={"color": colour, "width": 1.3 if dash == "dot" else 1.7, "dash": dash},
        hoverinfo="skip",
    )
    return [plane.line(start, end) for start, end in pairwise(points)]


def _add_seeds(figure: go.Figure, mark: _Mark) -> None:
    if not mark.seeds:
        return
    figure.add_scatter(
        x=[leak for _, leak, _ in mark.seeds],
        y=[habit for _, _, habit in mark.seeds],
        mode="markers",
        marker={"color": mark.look.hue.mark, "size": 6, "symbol": mark.look.symbol, "opacity": 0.6},
        cliponaxis=False,
        customdata=[seed for seed, _, _ in mark.seeds],
        hovertemplate=f"{plain(short_tag(mark.group))}, seed %{{customdata}}: "
        "leak %{x:.3f}, kept %{y:.3f}<extra></extra>",
    )


def _add_arms(figure: go.Figure, mark: _Mark) -> None:
    """The intervals that the mark has, under the marks."""
    hue = mark.look.hue
    across = whisker(mark.leak, mark.across, hue.mark, thickness=1.2, cap=4) if mark.across else None
    up = whisker(mark.habit, mark.up, hue.mark, thickness=1.2, cap=4) if mark.up else None
    figure.add_scatter(
        x=[mark.leak],
        y=[mark.habit],
        mode="markers",
        marker={"size": 0.1, "color": hue.mark},
        error_x=across,
        error_y=up,
        opacity=0.65,
        hoverinfo="skip",
    )


def _arms(mark: _Mark, plane: _Plane) -> list[Segment]:
    """What names should keep away from: the mark's intervals and its seeds."""
    lines: list[Segment] = []
    if mark.across is not None:
        lines.append(plane.line((mark.across.low, mark.habit), (mark.across.high, mark.habit)))
    if mark.up is not None:
        lines.append(plane.line((mark.leak, mark.up.low), (mark.leak, mark.up.high)))
    return [*lines, *(plane.line((leak, habit), (leak, habit)) for _, leak, habit in mark.seeds)]


def _add_mark(figure: go.Figure, mark: _Mark, *, baseline: bool) -> None:
    """The mean; the baseline's has a ring around it."""
    tag = plain(short_tag(mark.group))
    if baseline:
        figure.add_scatter(
            x=[mark.leak],
            y=[mark.habit],
            mode="markers",
            marker={"size": 22, "symbol": "circle-open", "color": INK, "line": {"width": 1.8}},
            cliponaxis=False,
            name="baseline",
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=[mark.leak],
        y=[mark.habit],
        mode="markers",
        name=tag,
        marker={
            "color": mark.look.hue.mark,
            "size": 13,
            "symbol": mark.look.symbol,
            "line": {"width": 1.5, "color": PAPER},
        },
        cliponaxis=False,
        hovertemplate=f"{tag}: leak %{{x:.3f}}, kept %{{y:.3f}}<extra></extra>",
    )


def _name(scene: Scene, mark: _Mark, paths: Sequence[Sequence[_Mark]], *, full: bool) -> str:
    """What stands beside a mark: within a path the parameter alone, its ends and all others by name."""
    group, number = mark.group, mark.look.number
    if not full and number is not None:
        return str(number)
    within = any(mark in path[1:-1] for path in paths)
    detail = group.tag.partition(" · ")[2]
    short = detail if within and detail else group.tag
    return brief(short, LONGEST_LINE) + (
        ", baseline" if scene.baseline is not None and group.label == scene.baseline.label else ""
    )


def _name_frontier(
    figure: go.Figure, steps: Sequence[tuple[float, float]], plane: _Plane, marks: Sequence[_Mark]
) -> Box:
    """Writes the frontier's name along the step with the most room, away from the marks; returns where it
    stands."""
    half = CHARACTER * len(FRONTIER) / 2
    points = [plane.pixels(mark.leak, mark.habit) for mark in marks]
    offers: list[tuple[float, float, float]] = []
    for start, end in pairwise(steps):
        (x0, y0), (x1, y1) = plane.pixels(*start), plane.pixels(*end)
        if y0 != y1:
            continue
        for x in (x1 - half - 4, (x0 + x1) / 2, x0 + half + 4):
            for y in (y0 - 10, y0 + 10):
                inside = half <= x <= plane.width - half and 8 <= y <= plane.height - 8
                near = min(max(abs(x - px) / (half + 10), abs(y - py) / 18) for px, py in points)
                offers.append((min(near, 2.0) + (x1 - x0 > 2 * half) if inside else -1.0, x, y))
    _, x, y = max(offers)
    figure.add_annotation(
        x=plane.left + x / plane.width * (plane.right - plane.left),
        y=plane.bottom + y / plane.height * (plane.top - plane.bottom),
        text=f"<i>{FRONTIER}</i>",
        showarrow=False,
        font={"size": 12, "color": MUTED},
    )
    return (x - half, y - 8, x + half, y + 8)


def _add_names(
    figure: go.Figure,
    named: Sequence[tuple[_Mark, str]],
    plane: _Plane,
    lines: Sequence[Segment],
    taken: Box,
) -> None:
    places = around(
        [plane.pixels(mark.leak, mark.habit) for mark, _ in named],
        [name for _, name in named],
        lines=lines,
        size=(plane.width, plane.height),
        taken=[taken],
    )
    for (mark, name), place in zip(named, places, strict=True):
        figure.add_annotation(
            x=mark.leak,
            y=mark.habit,
            ax=place.right,
            ay=-place.up,
            text=f"<b>{plain(name)}</b>",
            showarrow=True,
            arrowhead=0,
            arrowwidth=1 if place.far else 0.1,
            arrowcolor=mark.look.hue.mark if place.far else "rgba(0,0,0,0)",
            standoff=8,
            bgcolor=PAPER,
            borderpad=1,
            font={"size": 12, "color": mark.look.hue.text},
        )
