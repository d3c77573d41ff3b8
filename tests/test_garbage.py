"""No garbage is looked for where all that is made stays, and it is again afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from triggerctl.garbage import all_that_is_made_stays


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


def test_it_is_off_within_and_on_after_an_error_too() -> None:
    seen = []

    def fail() -> None:
        with all_that_is_made_stays():
            seen.append(gc.isenabled())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [*seen, gc.isenabled()] == [False, True]


def test_where_it_was_off_it_stays_off() -> None:
    gc.disable()
    with all_that_is_made_stays():
        pass
    assert not gc.isenabled()


def test_what_stays_for_good_is_not_gone_through_again() -> None:
    before = gc.get_freeze_count()
    with all_that_is_made_stays():
        kept: list[list[int]] = [[] for _ in range(1000)]
    assert gc.get_freeze_count() == before
    with all_that_is_made_stays(for_good=True):
        pass
    assert gc.get_freeze_count() >= before + len(kept)
