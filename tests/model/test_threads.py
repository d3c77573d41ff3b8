"""How many threads work of a size gets: by rule, never more than were given, and given back.

pytest tests/model/test_threads.py"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from triggerctl.model.threads import WORTH_A_THREAD, as_many_threads_as_pay


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("operations", "threads"),
    [(0, 1), (WORTH_A_THREAD - 1, 1), (2 * WORTH_A_THREAD, 2), (3 * WORTH_A_THREAD - 1, 2), (10**12, 4)],
)
def test_a_thread_is_woken_for_work_that_pays(operations: int, threads: int) -> None:
    with as_many_threads_as_pay(operations):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 4


def test_what_was_given_comes_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="on the way"), as_many_threads_as_pay(1):
        raise ValueError("on the way")
    assert torch.get_num_threads() == 4
