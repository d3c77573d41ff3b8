"""pytest tests/report/test_labels.py"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from triggerctl.report.labels import CHARACTER, DOT, LINE, around, crosses, spread

POSITIONS = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(POSITIONS)
def test_spread_labels_keep_their_gap_order_and_bounds(positions: list[float]) -> None:
    found = spread(positions, 0.05, low=0, high=1)
    placed = sorted(found)
    assert all(b - a >= 0.05 - 1e-9 for a, b in pairwise(placed))
    assert placed[0] >= -1e-9
    assert placed[-1] <= 1 + 1e-9
    by_wish = sorted(range(len(positions)), key=lambda i: positions[i])
    assert [found[i] for i in by_wish] == sorted(found)


def test_labels_far_apart_stay_where_they_are() -> None:
    assert spread([0.9, 0.1, 0.5], 0.1, low=0, high=1) == [0.9, 0.1, 0.5]


def test_more_labels_than_fit_are_spaced_evenly() -> None:
    assert spread([0.5] * 5, 0.5, low=0, high=1) == [0, 0.25, 0.5, 0.75, 1]


def test_labels_of_crowded_marks_do_not_overlap() -> None:
    marks = [(200.0, 200.0), (204.0, 202.0), (208.0, 199.0), (203.0, 206.0)]
    texts = ["naive", "kl · β 10", "orth", "steering"]
    places = around(marks, texts, lines=[], size=(400, 400))
    boxes = []
    for (x, y), text, place in zip(marks, texts, places, strict=True):
        half = CHARACTER * len(text) / 2
        centre = (x + place.right, y + place.up)
        boxes.append((centre[0] - half, centre[1] - LINE / 2, centre[0] + half, centre[1] + LINE / 2))
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_label_of_two_lines_needs_the_room_of_two() -> None:
    marks = [(200.0, 200.0), (200.0, 226.0)]
    upper, lower = around(marks, ["one\ntwo", "three"], lines=[], size=(400, 400))
    boxes = [
        (x + place.right, y + place.up, rows)
        for (x, y), place, rows in zip(marks, (upper, lower), (2, 1), strict=True)
    ]
    (x0, y0, rows0), (x1, y1, rows1) = boxes
    half = CHARACTER * (3 + 5) / 2
    assert abs(x0 - x1) >= half or abs(y0 - y1) >= LINE * (rows0 + rows1) / 2


def test_a_label_keeps_off_what_is_taken() -> None:
    taken = [(200.0, 180.0, 300.0, 220.0)]
    [place] = around([(195.0, 200.0)], ["naive"], lines=[], size=(400, 400), taken=taken)
    assert place.right < 0 or abs(place.up) > 20


def test_a_label_beside_a_line_does_not_cover_it() -> None:
    [place] = around([(200.0, 200.0)], ["naive"], lines=[(200.0, 200.0, 400.0, 200.0)], size=(400, 400))
    half = CHARACTER * 5 / 2
    assert place.right + half <= 0 or abs(place.up) >= LINE / 2


@given(st.floats(-60, 60), st.floats(-30, 30))
def test_a_label_beside_a_small_mark_covers_no_part_of_it(right: float, up: float) -> None:
    dot = (200 + right, 200 + up)
    [place] = around([(200.0, 200.0)], ["naive"], lines=[(*dot, *dot)], size=(400, 400))
    across = abs(right - place.right) - CHARACTER * 5 / 2
    along = abs(up - place.up) - LINE / 2
    assert np.hypot(max(across, 0), max(along, 0)) >= DOT


COORDINATES = st.tuples(*[st.integers(0, 40)] * 4)


@given(COORDINATES, COORDINATES)
def test_a_line_crosses_a_box_where_one_of_its_points_lies_inside(
    line: tuple[int, int, int, int], corners: tuple[int, int, int, int]
) -> None:
    box = np.array(
        [min(corners[0], corners[2]), min(corners[1], corners[3]), *np.maximum(corners[:2], corners[2:])],
        float,
    )
    steps = np.linspace(0, 1, 2001)[:, None]
    points = np.array(line[:2]) * (1 - steps) + np.array(line[2:]) * steps
    inside = ((points >= box[:2] - 1e-9) & (points <= box[2:] + 1e-9)).all(axis=1).any()
    # A line that only grazes a corner may slip between two of the points.
    grown = ((points >= box[:2] - 0.05) & (points <= box[2:] + 0.05)).all(axis=1).any()
    found = bool(crosses(np.array([line], float), box)[0])
    assert found or not inside
    assert grown or not found
