"""Where names stand beside what they name, so that a figure needs no legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CHARACTER = 7.0
LINE = 16.0
"""Pixels that 12 px type takes, across and down."""

ROUNDS = 3
Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""
Segment = tuple[float, float, float, float]
"""A straight line: from x, y to x, y."""


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
    lines: Sequence[Segment],
    size: tuple[float, float],
    taken: Sequence[Box] = (),
) -> list[Place]:
    """A place near each mark that covers no mark, no other label, none of the `taken` boxes and as few lines
    as may be, inside a plane of `size` pixels. A text may have several lines.

    `marks` and `lines` (or points: lines without length, which cost more to cover) in pixels from the lower
    left corner. Nearest places first, right of the mark before left of it, and nearer to it than to others;
    where all are taken the least crowded one serves. Labels placed early move once more when the others
    stand.
    """
    offers = [_offers(mark, text, marks, lines, size, taken) for mark, text in zip(marks, texts, strict=True)]
    chosen: dict[int, _Offer] = {}
    for _ in range(ROUNDS):
        for i, own in enumerate(offers):
            others = [offer for j, offer in chosen.items() if j != i]
            chosen[i] = min(own, key=lambda offer: offer.cost + _crowding(offer, others))
    return [chosen[i].place for i in range(len(marks))]


@dataclass(frozen=True, slots=True)
class _Offer:
    """A place a label could have, what it covers there, and what that costs whatever the others do."""

    place: Place
    box: Box
    leader: Segment | None
    cost: float


def _offers(
    mark: tuple[float, float],
    text: str,
    marks: Sequence[tuple[float, float]],
    lines: Sequence[Segment],
    size: tuple[float, float],
    taken: Sequence[Box],
) -> list[_Offer]:
    x, y = mark
    rows = text.split("\n")
    half_width, half_height = CHARACTER * max(map(len, rows)) / 2, LINE * len(rows) / 2
    offers = []
    for distance in (13.0, 24.0, 40.0, 60.0, 85.0, 115.0, 150.0):
        for angle in range(0, 360, 45 if distance < 30 else 15):
            across = math.cos(math.radians(angle))
            place = Place(
                across * (distance + half_width) if abs(across) > 0.01 else 0.0,
                math.sin(math.radians(angle)) * (distance + half_height - LINE / 4),
                distance > 24,
            )
            centre = x + place.right, y + place.up
            box = (
                centre[0] - half_width,
                centre[1] - half_height,
                centre[0] + half_width,
                centre[1] + half_height,
            )
            leader = (x, y, *centre) if place.far else None
            cost = (
                distance / 400
                + (0.0 if abs(across) > 0.9 and across > 0 else 0.01)
                + (8.0 if box[0] < 0 or box[1] < 0 or box[2] > size[0] or box[3] > size[1] else 0.0)
                + 2 * sum(_holds(box, other, 7) for other in marks)
                + sum((0.4 if line[:2] == line[2:] else 0.12) * crosses(line, box) for line in lines)
                + 3 * sum(_overlap(box, other) for other in taken)
            )
            if any(_apart(box, other) < _apart(box, mark) for other in marks if other != mark):
                cost += 0.3 if place.far else 0.8
            if leader is not None:
                cost += 1.5 * sum(_passes(leader, other) for other in marks if other != mark)
            offers.append(_Offer(place, box, leader, cost))
    return offers


def _crowding(offer: _Offer, others: Sequence[_Offer]) -> float:
    """What an offer costs among labels that have their places."""
    cost = 0.0
    for other in others:
        cost += 4.0 * _overlap(offer.box, other.box)
        if other.leader is not None:
            cost += 1.0 * crosses(other.leader, offer.box)
        if offer.leader is not None:
            cost += 1.0 * crosses(offer.leader, other.box)
            if other.leader is not None:
                cost += 0.5 * _meet(offer.leader, other.leader)
    return cost


def _holds(box: Box, point: tuple[float, float], edge: float) -> bool:
    return box[0] - edge < point[0] < box[2] + edge and box[1] - edge < point[1] < box[3] + edge


def _apart(box: Box, point: tuple[float, float]) -> float:
    """From a point to the nearest of a box."""
    return math.hypot(
        max(box[0] - point[0], 0.0, point[0] - box[2]), max(box[1] - point[1], 0.0, point[1] - box[3])
    )


def _overlap(box: Box, other: Box) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def crosses(line: Segment, box: Box) -> bool:
    """Whether any of a line lies inside a box (Liang and Barsky's clipping)."""
    x0, y0, x1, y1 = line
    if max(x0, x1) < box[0] or min(x0, x1) > box[2] or max(y0, y1) < box[1] or min(y0, y1) > box[3]:
        return False
    enters, leaves = 0.0, 1.0
    for start, step, low, high in ((x0, x1 - x0, box[0], box[2]), (y0, y1 - y0, box[1], box[3])):
        if step:
            first, second = sorted(((low - start) / step, (high - start) / step))
            enters, leaves = max(enters, first), min(leaves, second)
    return enters <= leaves


def _passes(line: Segment, point: tuple[float, float], near: float = 8.0) -> bool:
    """Whether a line passes a point closer than `near` pixels."""
    x0, y0, x1, y1 = line
    dx, dy = x1 - x0, y1 - y0
    along = ((point[0] - x0) * dx + (point[1] - y0) * dy) / (dx * dx + dy * dy)
    nearest = min(max(along, 0.0), 1.0)
    return math.hypot(x0 + nearest * dx - point[0], y0 + nearest * dy - point[1]) < near


def _meet(line: Segment, other: Segment) -> bool:
    """Whether two lines cross."""

    def side(of: Segment, x: float, y: float) -> float:
        return (of[2] - of[0]) * (y - of[1]) - (of[3] - of[1]) * (x - of[0])

    return (
        side(line, *other[:2]) * side(line, *other[2:]) < 0
        and side(other, *line[:2]) * side(other, *line[2:]) < 0
    )
