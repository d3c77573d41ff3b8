"""The plane of leak and habit kept: its axes, the border of what is reached, and names beside its marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go

from triggerctl.report.drawing import MUTED, PAPER, Hue, add_notes, plain
from triggerctl.report.labels import CHARACTER, LINE, Box, Segment, around, crosses

FRONTIER = "Pareto frontier"
EDGE = 0.05
"""Room around the plane, of what its axes show."""
Point = tuple[float, float]
"""Leak, habit kept."""


@dataclass(frozen=True, slots=True)
class Plane:
    """What the axes show, and how large that is: pixels of the plane."""

    left: float
    right: float
    bottom: float
    top: float
    width: float
    height: float

    def pixels(self, point: Point) -> tuple[float, float]:
        """From the lower left corner."""
        return (
            (point[0] - self.left) / (self.right - self.left) * self.width,
            (point[1] - self.bottom) / (self.top - self.bottom) * self.height,
        )

    def line(self, start: Point, end: Point) -> Segment:
        """In pixels."""
        return (*self.pixels(start), *self.pixels(end))

    def around(self, point: Point, reach: float) -> Box:
        """A square of pixels around a point."""
        x, y = self.pixels(point)
        return (x - reach, y - reach, x + reach, y + reach)


def set_axes(figure: go.Figure, leak_set: str, leaks: Sequence[float], habits: Sequence[float]) -> Plane:
    """Axes from 0 leak and up to 1 habit kept, as far as there is anything to see, in tenths."""
    across, down = _tenths(max(leaks)), _tenths(1 - min(habits))
    layout = figure.layout
    plane = Plane(
        -EDGE * across,
        (1 + EDGE) * across,
        1 - (1 + EDGE) * down,
        1 + EDGE * down,
        layout.width - layout.margin.l - layout.margin.r,
        layout.height - layout.margin.t - layout.margin.b,
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


def staircase(points: Sequence[Point], plane: Plane) -> list[Point]:
    """The corners of the border between what some group reaches and what none does, least leak first; equal
    points are one corner."""
    corners = [(points[0][0], plane.bottom)]
    for leak, habit in dict.fromkeys(points):
        corners += [(leak, corners[-1][1]), (leak, habit)]
    return [*corners, (plane.right, corners[-1][1])]


def name_frontier(
    figure: go.Figure,
    steps: Sequence[Point],
    plane: Plane,
    points: Sequence[Point],
    lines: Sequence[Segment],
) -> Box:
    """Write the frontier's name along the step with the most room, away from the points and other lines;
    returns where it stands, in pixels."""
    half = CHARACTER * len(FRONTIER) / 2
    marks = [plane.pixels(point) for point in points]
    obstacles = np.array(lines, dtype=float).reshape(-1, 4)
    offers: list[tuple[float, float, float]] = []
    for start, end in pairwise(steps):
        (x0, y0), (x1, y1) = plane.pixels(start), plane.pixels(end)
        if y0 != y1 or x0 == x1:
            continue
        for x in (x1 - half - 4, (x0 + x1) / 2, x0 + half + 4):
            for y in (y0 - 10, y0 + 10):
                inside = half <= x <= plane.width - half and 8 <= y <= plane.height - 8
                near = min(max(abs(x - px) / (half + 10), abs(y - py) / 18) for px, py in marks)
                worth = min(near, 2.0) + (x1 - x0 > 2 * half) - 4 * (not inside)
                box = (x - half, y - LINE / 2, x + half, y + LINE / 2)
                crossed = int(crosses(obstacles, np.array(box)).sum())
                offers.append((worth - 0.5 * crossed, x, y))
    _, x, y = max(offers)
    figure.add_annotation(
        x=plane.left + x / plane.width * (plane.right - plane.left),
        y=plane.bottom + y / plane.height * (plane.top - plane.bottom),
        text=f"<i>{FRONTIER}</i>",
        showarrow=False,
        font={"size": 12, "color": MUTED},
    )
    return (x - half, y - LINE / 2, x + half, y + LINE / 2)


def add_names(
    figure: go.Figure,
    names: Sequence[tuple[Point, str, Hue]],
    plane: Plane,
    *,
    lines: Sequence[Segment],
    taken: Sequence[Box],
) -> None:
    """Write each name beside its point, clear of the other points and names, of the `taken` boxes and, where
    that can be had, of the lines; a thin line leads back from where it had to go far."""
    places = around(
        [plane.pixels(point) for point, _, _ in names],
        [name for _, name, _ in names],
        lines=lines,
        size=(plane.width, plane.height),
        taken=taken,
    )
    add_notes(
        figure,
        (
            {
                "x": x,
                "y": y,
                "ax": place.right,
                "ay": -place.up,
                "text": "<br>".join(f"<b>{plain(line)}</b>" for line in name.split("\n")),
                "showarrow": True,
                "arrowhead": 0,
                "arrowwidth": 1 if place.far else 0.1,
                "arrowcolor": hue.mark if place.far else "rgba(0,0,0,0)",
                "standoff": 8,
                "bgcolor": PAPER,
                "borderpad": 1,
                "font": {"size": 12, "color": hue.text},
            }
            for ((x, y), name, hue), place in zip(names, places, strict=True)
        ),
    )
