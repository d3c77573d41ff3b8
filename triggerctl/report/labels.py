"""Where names stand beside what they name, so that a figure needs no legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CHARACTER = 7.0
LINE = 16.0
"""Pixels that 12 px type takes, across and down."""

_Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


@dataclass(frozen=True, slots=True)
class Place:
    """A label's centre, in pixels from its mark: right and up. `far` asks for a thin line back to the
    mark."""

    right: float
    up: float
    far: bool


def spread(positions: Sequence[float], gap: float, *, low: float, high: float) -> list[float]:
    """Move label positions apart until neighbours are at least `gap` away, as little as may be, within low
    to high.

    Same order and length as given. Where they can't all fit, they are spaced evenly over the whole range.
    """
    if not positions:
        return []
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    room = high - low
    if gap * (len(order) - 1) >= room:
        gap = room / max(len(order) - 1, 1)
    # Labels that touch move as one block [sum of wished centres, members], centred on what they label.
    blocks: list[tuple[float, int]] = []
    for index in order:
        blocks.append((positions[index], 1))
        while (
            len(blocks) > 1
            and _edges(blocks[-2], gap, low, high)[1] + gap > _edges(blocks[-1], gap, low, high)[0]
        ):
            (last_sum, last_count), (sum_before, count_before) = blocks.pop(), blocks.pop()
            blocks.append((last_sum + sum_before, last_count + count_before))
    placed = [_edges(block, gap, low, high)[0] + gap * i for block in blocks for i in range(block[1])]
    result = [0.0] * len(order)
    for index, value in zip(order, placed, strict=True):
        result[index] = value
    return result


def _edges(block: tuple[float, int], gap: float, low: float, high: float) -> tuple[float, float]:
    """Where a block's first and last labels lie."""
    half = gap * (block[1] - 1) / 2
    centre = min(max(block[0] / block[1], low + half), high - half)
    return centre - half, centre + half


def around(
    marks: Sequence[tuple[float, float]],
    texts: Sequence[str],
    *,
    obstacles: Sequence[tuple[float, float]],
    size: tuple[float, float],
) -> list[Place]:
    """A place near each mark that covers no mark, no other label and as few obstacles as may be, inside a
    plane of `size` pixels.

    `marks` and `obstacles` in pixels from the lower left corner. Nearest places first, right of the mark
    before left of it; where all are taken the least crowded one serves.
    """
    boxes: list[_Box] = []
    lines: list[tuple[float, float]] = []
    places = []
    for (x, y), text in zip(marks, texts, strict=True):
        half_width, half_height = CHARACTER * len(text) / 2, LINE / 2
        best: tuple[float, Place, _Box] | None = None
        for distance in (13.0, 24.0, 40.0, 60.0, 85.0, 115.0):
            for angle in (0, 180, 45, -45, 135, -135, 90, -90):
                right = math.cos(math.radians(angle))
                place = Place(
                    right * (distance + half_width) if abs(right) > 0.01 else 0.0,
                    math.sin(math.radians(angle)) * (distance + half_height / 2),
                    distance > 24,
                )
                box = (
                    x + place.right - half_width,
                    y + place.up - half_height,
                    x + place.right + half_width,
                    y + place.up + half_height,
                )
                own = _line(x, y, place)
                cost = (
                    distance / 400
                    + _outside(box, size)
                    + 2 * _inside(box, marks, 7)
                    + 0.05 * _inside(box, obstacles, 2)
                    + 0.3 * _inside(box, lines, 1)
                    + sum(3 * _overlap(box, other) + 0.3 * _inside(other, own, 1) for other in boxes)
                )
                if best is None or cost < best[0]:
                    best = (cost, place, box)
        if best is not None:
            places.append(best[1])
            boxes.append(best[2])
            lines += _line(x, y, best[1])
    return places


def _line(x: float, y: float, place: Place) -> list[tuple[float, float]]:
    """Points along the thin line from a mark to its label; none for a label that needs no line."""
    return [(x + place.right * t / 12, y + place.up * t / 12) for t in range(1, 13)] if place.far else []


def _inside(box: _Box, points: Sequence[tuple[float, float]], edge: float) -> int:
    left, bottom, right, top = box
    return sum(left - edge < x < right + edge and bottom - edge < y < top + edge for x, y in points)


def _overlap(box: _Box, other: _Box) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _outside(box: _Box, size: tuple[float, float]) -> float:
    return 4.0 if box[0] < 0 or box[1] < 0 or box[2] > size[0] or box[3] > size[1] else 0.0
