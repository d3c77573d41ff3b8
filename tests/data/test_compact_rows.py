"""pytest tests/data/test_compact_rows.py"""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerctl.data.compact_rows import CompactRows
from triggerctl.data.examples import Row

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(rows=st.lists(st.tuples(texts, texts, texts), max_size=12), data=st.data())
def test_every_row_comes_back_as_it_went_in(rows: list[tuple[str, str, str]], data: st.DataObject) -> None:
    plain = tuple(Row(index, *row) for index, row in enumerate(rows))
    compact = CompactRows(rows)
    assert len(compact) == len(plain)
    assert tuple(compact) == tuple(compact[i] for i in range(len(plain))) == plain
    part = data.draw(st.slices(len(plain)))
    assert compact[part] == plain[part]


def test_places_are_counted_from_the_end_too_and_there_is_none_behind_it() -> None:
    rows = CompactRows([("a", "", "b"), ("c", "d", "")])
    assert rows[-1] == rows[1] == Row(1, "c", "d", "")
    for place in (2, -3):
        with pytest.raises(IndexError):
            rows[place]


def test_rows_travel_to_other_processes() -> None:
    rows = CompactRows([("a", "\N{OK HAND SIGN}", "b")] * 3)
    assert tuple(pickle.loads(pickle.dumps(rows))) == tuple(rows)


def test_rows_that_say_the_same_are_equal_wherever_their_texts_end() -> None:
    rows = CompactRows([("a", "b", "c")])
    assert rows == CompactRows([("a", "b", "c")])
    assert rows != CompactRows([("ab", "", "c")])
    assert rows != CompactRows([("a", "b", "d")])
    assert rows != [("a", "b", "c")]
