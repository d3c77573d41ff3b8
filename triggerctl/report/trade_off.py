"""The trade-off plane: what each strategy keeps of the habit, against what it lets leak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean

import plotly.graph_objects as go

from triggerctl.report.drawing import COLUMN_WIDTH, INK, MUTED, PAPER, TEXT_WIDTH, brief, lay_out, plain
from triggerctl.report.labels import Segment
from triggerctl.report.pareto import frontier, parameter_paths
from triggerctl.report.plane import FRONTIER, Plane, Point, add_names, name_frontier, set_axes, staircase
from triggerctl.report.rows import HABIT_SETS, Group
from triggerctl.report.scene import Scene
from triggerctl.report.statistics import Interval
from triggerctl.report.styles import (
    LONGEST_LINE,
    MOST_NAMES,
    MOST_ROWS,
    Style,
    interval_words,
    one_seed_each,
    short_tag,
    where,
    whisker,
)

FEW = 6
"""Groups whose names fit a narrow figure."""
LONGEST_NAME = 24
"""Characters of a name that stand on one line in a narrow figure."""
RING = 22


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

    @property
    def at(self) -> Point:
        return self.leak, self.habit


def trade_off_figure(scene: Scene) -> go.Figure | None:
    """Habit kept (mean rate of outcome and collateral) against leak (rate on the leak set), the upper left
    corner being the aim.

    Large marks are means over seeds with their intervals both ways, small ones each seed; a line joins the
    groups of a strategy that differ in one parameter; a dotted one borders what no strategy reaches. None
    where no leak was measured.
    """
    if scene.leak_set is None:
        return None
    found = [mark for group in scene.groups if (mark := _mark(scene, group, scene.leak_set)) is not None]
    best = frontier({mark.group.label: (mark.leak, mark.habit) for mark in found})
    shown = {*best, *(group.label for group in scene.foremost(MOST_ROWS))}
    marks = {mark.group.label: mark for mark in found if mark.group.label in shown}
    if not marks:
        return None
    paths = [[marks[group.label] for group in path] for path in _paths(marks)]
    names = _names(scene, marks, best, paths)
    longest = max(len(line) for name in names.values() for line in name.split("\n"))
    width = COLUMN_WIDTH if len(marks) <= FEW and longest <= LONGEST_NAME else TEXT_WIDTH
    figure = go.Figure()
    lay_out(
        figure,
        title="What each strategy keeps, and what it lets leak",
        subtitle=_subtitle(scene, [mark.group for mark in marks.values()], joined=bool(paths)),
        width=width,
        height=round(0.86 * width),
        top=68,
    )
    figure.update_layout(margin={"l": 66, "r": 22, "b": 56})
    detailed = [mark for label, mark in marks.items() if not names[label].isdecimal()]
    plane = set_axes(figure, scene.leak_set, *_extent(list(marks.values()), detailed))
    steps = staircase([marks[label].at for label in best], plane)
    border = _add_line(figure, plane, steps, MUTED, dash="dot", name=FRONTIER)
    lines: list[Segment] = []
    for path in paths:
        name = f"path of {plain(short_tag(path[0].group))}"
        points = [mark.at for mark in path]
        lines += _add_line(figure, plane, points, path[0].look.hue.mark, dash="solid", name=name)
    for mark in detailed:
        _add_seeds(figure, mark)
        _add_arms(figure, mark)
        lines += _arms(mark, plane)
    taken = []
    for mark in marks.values():
        if _is_baseline(scene, mark):
            _add_ring(figure, mark)
            taken.append(plane.around(mark.at, RING / 2))
        _add_mark(figure, mark)
    taken.append(name_frontier(figure, steps, plane, [mark.at for mark in marks.values()], lines))
    named = [(mark.at, names[label], mark.look.hue) for label, mark in marks.items()]
    add_names(figure, named, plane, lines=[*border, *lines], taken=taken)
    return figure


def _paths(marks: Mapping[str, _Mark]) -> tuple[tuple[Group, ...], ...]:
    return parameter_paths([mark.group for mark in marks.values()])


def _extent(marks: Sequence[_Mark], detailed: Sequence[_Mark]) -> tuple[list[float], list[float]]:
    """Leaks and habits that the axes must hold: the means, and of marks in detail the seeds and intervals."""
    leaks = [mark.leak for mark in marks] + [leak for mark in detailed for _, leak, _ in mark.seeds]
    leaks += [mark.across.high for mark in detailed if mark.across is not None]
    habits = [mark.habit for mark in marks] + [habit for mark in detailed for _, _, habit in mark.seeds]
    habits += [mark.up.low for mark in detailed if mark.up is not None]
    return leaks, habits


def _mark(scene: Scene, group: Group, leak_set: str) -> _Mark | None:
    seeds = tuple(
        (run.seed, leak, habit)
        for run in group.runs
        if (leak := run.rate(leak_set)) is not None and (habit := run.habit) is not None
    )
    if not seeds:
        return None
    leak, habit = (fmean(seed[i] for seed in seeds) for i in (1, 2))
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
    """Of the mean rate of outcome and collateral: over the seeds, which the two share; of a single run the
    mean of their limits over rows, wide enough whether or not the two rise and fall together."""
    if len(group.runs) > 1:
        summary = group.summary(*(name for name in HABIT_SETS if group.mean(name) is not None))
        return summary.interval if summary is not None else None
    found = [(mean, group.interval(name)) for name in HABIT_SETS if (mean := group.mean(name)) is not None]
    known = [interval for _, interval in found if interval is not None]
    if not known:
        return None
    low = sum(interval.low if interval else mean for mean, interval in found) / len(found)
    high = sum(interval.high if interval else mean for mean, interval in found) / len(found)
    return replace(known[0], low=low, high=high)


def _subtitle(scene: Scene, drawn: Sequence[Group], *, joined: bool) -> str:
    one = one_seed_each(scene.groups)
    return (
        where(scene.groups)
        + "the upper left corner is best · "
        + ("one seed" if one else "large: mean over seeds; small: each seed")
        + f" · {interval_words(scene.groups, 'bars')}"
        + (" · lines join a strategy's groups in the order of a parameter" if joined else "")
        + (" · numbers: as in the figure of accuracies" if len(drawn) > MOST_NAMES else "")
        + scene.left_out(drawn)
    )


def _add_line(
    figure: go.Figure,
    plane: Plane,
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


def _arms(mark: _Mark, plane: Plane) -> list[Segment]:
    """What names should keep away from: the mark's intervals and its seeds."""
    lines: list[Segment] = []
    if mark.across is not None:
        lines.append(plane.line((mark.across.low, mark.habit), (mark.across.high, mark.habit)))
    if mark.up is not None:
        lines.append(plane.line((mark.leak, mark.up.low), (mark.leak, mark.up.high)))
    return [*lines, *(plane.line((leak, habit), (leak, habit)) for _, leak, habit in mark.seeds)]


def _add_ring(figure: go.Figure, mark: _Mark) -> None:
    """What marks the baseline."""
    figure.add_scatter(
        x=[mark.leak],
        y=[mark.habit],
        mode="markers",
        marker={"size": RING, "symbol": "circle-open", "color": INK, "line": {"width": 1.8}},
        cliponaxis=False,
        name="baseline",
        hoverinfo="skip",
    )


def _add_mark(figure: go.Figure, mark: _Mark) -> None:
    tag = plain(short_tag(mark.group))
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


def _is_baseline(scene: Scene, mark: _Mark) -> bool:
    return scene.baseline is not None and mark.group.label == scene.baseline.label


def _names(
    scene: Scene, marks: Mapping[str, _Mark], best: Sequence[str], paths: Sequence[Sequence[_Mark]]
) -> dict[str, str]:
    """What stands beside each mark: within a path the parameter alone, its ends and all others by name, what
    is long on two lines. Where there are too many names, those of the baseline, the frontier and the paths'
    ends, of the others their numbers."""
    inner = {mark.group.label for path in paths for mark in path[1:-1]}
    ends = {mark.group.label for path in paths for mark in (path[0], path[-1])}
    result = {}
    for label, mark in marks.items():
        baseline = _is_baseline(scene, mark)
        if len(marks) > MOST_NAMES and not (baseline or label in best or label in ends):
            result[label] = str(mark.look.number)
            continue
        name, _, detail = mark.group.tag.partition(" · ")
        if label in inner and detail:
            text = brief(detail, LONGEST_LINE)
        elif detail and len(mark.group.tag) > LONGEST_NAME:
            text = f"{brief(name, LONGEST_NAME)}\n{brief(detail, LONGEST_LINE)}"
        else:
            text = short_tag(mark.group)
        result[label] = f"{text}, baseline" if baseline else text
    return result
