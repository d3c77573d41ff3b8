"""pytest tests/report/test_labels.py"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from triggerctl.report.labels import CHARACTER, LINE, around, spread

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
    places = around(marks, texts, obstacles=[], size=(400, 400))
    boxes = []
    for (x, y), text, place in zip(marks, texts, places, strict=True):
        half = CHARACTER * len(text) / 2
        centre = (x + place.right, y + place.up)
        boxes.append((centre[0] - half, centre[1] - LINE / 2, centre[0] + half, centre[1] + LINE / 2))
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
