"""Where names stand beside what they name, so that a figure needs no legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CHARACTER = 7.0
LINE = 16.0
"""Pixels that 12 px type takes, across and down."""

DOT = 5.0
"""Pixels from a small mark's centre to its edge."""

ROUNDS = 3
KEPT = 48
"""Places of a label that are weighed against those of the others."""
Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""
Segment = tuple[float, float, float, float]
"""A straight line: from x, y to x, y; one without length is a point."""
DISTANCES = (13.0, 24.0, 40.0, 60.0, 85.0, 115.0, 150.0)
"""Pixels between a mark and its label; beyond the second a thin line leads back."""

_Numbers = npt.NDArray[np.float64]
_Truths = npt.NDArray[np.bool_]


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

    `marks` and `lines` (a point costs more to cover) in pixels from the lower left corner. Nearest places
    first, right of the mark before left of it, and nearer to it than to others; where all are taken the least
    crowded one serves. Labels placed early move once more when the others stand.
    """
    points = np.array(marks, dtype=float).reshape(-1, 2)
    obstacles = np.array(lines, dtype=float).reshape(-1, 4)
    closed = np.array(taken, dtype=float).reshape(-1, 4)
    offers = [_offers(i, text, points, obstacles, size, closed) for i, text in enumerate(texts)]
    chosen: dict[int, int] = {}
    for _ in range(ROUNDS):
        for i, own in enumerate(offers):
            others = [(offers[j], choice) for j, choice in chosen.items() if j != i]
            chosen[i] = int(np.argmin(own.costs + _crowding(own, others)))
    return [offers[i].place(chosen[i]) for i in range(len(offers))]


@dataclass(frozen=True, slots=True)
class _Offers:
    """The places one label could have, and what each costs whatever the other labels do.

    shifts: (places, 2) from the mark to the label's centre; boxes: (places, 4); leaders: (places, 4), of no
    length where the label stands near; far, costs: (places,).
    """

    shifts: _Numbers
    boxes: _Numbers
    leaders: _Numbers
    far: _Truths
    costs: _Numbers

    def place(self, choice: int) -> Place:
        return Place(float(self.shifts[choice, 0]), float(self.shifts[choice, 1]), bool(self.far[choice]))


def _offers(
    index: int, text: str, marks: _Numbers, lines: _Numbers, size: tuple[float, float], taken: _Numbers
) -> _Offers:
    rows = text.split("\n")
    half = np.array([CHARACTER * max(map(len, rows)) / 2, LINE * len(rows) / 2])
    turns = [(d, angle) for d in DISTANCES for angle in range(0, 360, 45 if d <= DISTANCES[1] else 15)]
    distances = np.array([distance for distance, _ in turns])
    angles = np.radians([angle for _, angle in turns])
    far = distances > DISTANCES[1]
    across, up = np.cos(angles), np.sin(angles)
    # Right above and below the label is centred; elsewhere its near end keeps the distance.
    shifts = np.stack(
        [
            np.where(np.abs(across) > 0.01, across * (distances + half[0]), 0),
            up * (distances + half[1] - LINE / 4),
        ],
        axis=1,
    )
    mark, others = marks[index], np.delete(marks, index, axis=0)
    centres = mark + shifts
    boxes = np.concatenate([centres - half, centres + half], axis=1)
    leaders = np.concatenate(
        [np.broadcast_to(mark, centres.shape), np.where(far[:, None], centres, mark)], axis=1
    )
    outside = (boxes[:, :2] < 0).any(axis=1) | (boxes[:, 2:] > np.array(size)).any(axis=1)
    point = (lines[:, :2] == lines[:, 2:]).all(axis=1)
    covered = np.where(point, _apart(boxes, lines[:, :2]) < DOT, crosses(lines, boxes[:, None]))
    astray = (_apart(boxes, others) < _apart(boxes, mark[None])).any(axis=1)
    costs = (
        distances / 400
        + np.where(across > 0.9, 0, 0.01)
        + 8 * outside
        + 2 * (_apart(boxes, marks) < 7).sum(axis=1)
        + (covered * np.where(point, 0.4, 0.12)).sum(axis=1)
        + 3 * _overlap(boxes[:, None], taken).sum(axis=1)
        + astray * np.where(far, 0.3, 0.8)
        + 1.5 * far * (_passed(leaders, others) < 8).sum(axis=1)
    )
    best = np.argsort(costs, kind="stable")[:KEPT]
    return _Offers(shifts[best], boxes[best], leaders[best], far[best], costs[best])


def _crowding(own: _Offers, others: Sequence[tuple[_Offers, int]]) -> _Numbers | float:
    """What each place of a label costs among labels that have theirs: (places,)."""
    if not others:
        return 0.0
    boxes = np.stack([offers.boxes[choice] for offers, choice in others])
    leaders = np.stack([offers.leaders[choice] for offers, choice in others])
    far = np.array([offers.far[choice] for offers, choice in others])
    own_boxes, own_leaders, own_far = own.boxes[:, None], own.leaders[:, None], own.far[:, None]
    cost: _Numbers = (
        4.0 * _overlap(own_boxes, boxes)
        + far * crosses(leaders, own_boxes)
        + own_far * crosses(own_leaders, boxes)
        + 0.5 * (far & own_far & _meet(own_leaders, leaders))
    ).sum(axis=1)
    return cost


def _apart(boxes: _Numbers, points: _Numbers) -> _Numbers:
    """From each point (points, 2) to the nearest of each box (boxes, 4): (boxes, points)."""
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    beyond = np.maximum(np.maximum(low - points, points - high), 0)
    distance: _Numbers = np.hypot(beyond[..., 0], beyond[..., 1])
    return distance


def _overlap(boxes: _Numbers, others: _Numbers) -> _Truths:
    """Which boxes (…, 4) share ground with which others."""
    along: _Truths = (boxes[..., :2] < others[..., 2:]) & (others[..., :2] < boxes[..., 2:])
    return along[..., 0] & along[..., 1]


def crosses(lines: _Numbers, boxes: _Numbers) -> _Truths:
    """Which lines (…, 4) have any part inside which boxes (…, 4): Liang and Barsky's clipping."""
    start, step = lines[..., :2], lines[..., 2:] - lines[..., :2]
    still = step == 0
    pace = np.where(still, 1.0, step)
    first, second = (boxes[..., :2] - start) / pace, (boxes[..., 2:] - start) / pace
    # A line that does not move along an axis is inside its slab all the way, or never.
    inside = (boxes[..., :2] <= start) & (start <= boxes[..., 2:])
    enters = np.where(still, np.where(inside, 0.0, np.inf), np.minimum(first, second)).max(axis=-1)
    leaves = np.where(still, np.where(inside, 1.0, -np.inf), np.maximum(first, second)).min(axis=-1)
    crossing: _Truths = np.maximum(enters, 0) <= np.minimum(leaves, 1)
    return crossing


def _passed(lines: _Numbers, points: _Numbers) -> _Numbers:
    """How close each line (lines, 4) passes each point (points, 2): (lines, points), in pixels."""
    start, step = lines[:, None, :2], lines[:, None, 2:] - lines[:, None, :2]
    length = np.maximum((step**2).sum(axis=-1), 1e-9)
    along = np.clip(((points - start) * step).sum(axis=-1) / length, 0, 1)
    off = start + along[..., None] * step - points
    distance: _Numbers = np.hypot(off[..., 0], off[..., 1])
    return distance


def _meet(lines: _Numbers, others: _Numbers) -> _Truths:
    """Which lines (…, 4) cross which others."""

    def sides(of: _Numbers, points: _Numbers) -> _Numbers:
        step, off = of[..., 2:] - of[..., :2], points - of[..., :2]
        turned: _Numbers = step[..., 0] * off[..., 1] - step[..., 1] * off[..., 0]
        return turned

    crossing: _Truths = (sides(lines, others[..., :2]) * sides(lines, others[..., 2:]) < 0) & (
        sides(others, lines[..., :2]) * sides(others, lines[..., 2:]) < 0
    )
    return crossing
