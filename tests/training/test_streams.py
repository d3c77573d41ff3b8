"""Which rows an update sees, and how they are cut: pytest tests/training/test_streams.py"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from triggerctl.training.streams import epoch_updates, micro_batches, updates_per_epoch

LENGTHS = {"outcome": 23, "proxy": 9}


def epoch(
    lengths: dict[str, int], size: int, *, seed: int = 1, number: int = 0, synchronized: bool = False
) -> list[dict[str, list[int]]]:
    return epoch_updates(lengths, size, seed=seed, phase="main", epoch=number, synchronized=synchronized)


def flat(updates: list[dict[str, list[int]]], stream: str) -> list[int]:
    return [row for update in updates for row in update.get(stream, [])]


@given(outcome=st.integers(0, 60), proxy=st.integers(0, 60), size=st.integers(1, 20), seed=st.integers(0, 9))
def test_an_epoch_is_one_pass_over_the_first_stream(outcome: int, proxy: int, size: int, seed: int) -> None:
    updates = epoch({"outcome": outcome, "proxy": proxy}, size, seed=seed)
    assert sorted(flat(updates, "outcome")) == list(range(outcome))
    assert len(updates) == updates_per_epoch({"outcome": outcome, "proxy": proxy}, size, synchronized=False)
    assert [len(u["outcome"]) for u in updates[:-1]] == [size] * (len(updates) - 1)
    if proxy:
        seen = flat(updates, "proxy")
        passes = [seen[start : start + proxy] for start in range(0, len(seen), proxy)]
        assert all(sorted(one) == list(range(proxy)) for one in passes if len(one) == proxy)
        assert all(len(set(one)) == len(one) for one in passes)
        assert all(update["proxy"] for update in updates)


@given(outcome=st.integers(0, 60), proxy=st.integers(0, 60), size=st.integers(1, 20))
def test_synchronized_epochs_see_every_row_of_every_stream_once(outcome: int, proxy: int, size: int) -> None:
    updates = epoch({"outcome": outcome, "proxy": proxy}, size, synchronized=True)
    assert sorted(flat(updates, "outcome")) == list(range(outcome))
    assert sorted(flat(updates, "proxy")) == list(range(proxy))
    assert len(updates) == max(-(-outcome // size), -(-proxy // size))
    for stream in ("outcome", "proxy"):
        present = [stream in update for update in updates]
        assert present == sorted(present, reverse=True)  # one that has run out sits out until the end


def test_the_last_update_takes_what_is_left() -> None:
    updates = epoch(LENGTHS, 8)
    assert [len(update["outcome"]) for update in updates] == [8, 8, 7]
    assert [len(update["proxy"]) for update in updates] == [8, 1, 8]


def test_every_epoch_and_every_new_start_is_shuffled_anew() -> None:
    orders = [tuple(flat(epoch(LENGTHS, 8, number=n), "outcome")) for n in range(4)]
    assert len(set(orders)) == 4
    seen = flat(epoch({"outcome": 40, "proxy": 8}, 8), "proxy")
    starts = [tuple(seen[at : at + 8]) for at in range(0, 40, 8)]
    assert len(set(starts)) == 5
    proxies = [tuple(flat(epoch(LENGTHS, 8, number=n), "proxy")[:9]) for n in range(4)]
    assert len(set(proxies)) == 4


def test_order_depends_on_seed_stream_and_epoch_alone() -> None:
    """So that a strategy with a second stream sees outcome in the very order of one without."""
    alone = flat(epoch({"outcome": 23}, 8, number=3), "outcome")
    beside = flat(epoch(LENGTHS, 8, number=3), "outcome")
    smaller = flat(epoch(LENGTHS, 5, number=3), "outcome")
    assert alone == beside == smaller
    assert alone != flat(epoch({"outcome": 23}, 8, number=3, seed=2), "outcome")


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=40),
    limit=st.integers(1, 12),
    overhead=st.integers(0, 60),
)
def test_micro_batches_cover_every_row_once_within_the_limit(
    lengths: list[int], limit: int, overhead: int
) -> None:
    rows = [3 * i for i in range(len(lengths))]
    cuts = micro_batches(rows, dict(zip(rows, lengths, strict=True)), limit, overhead=overhead)
    assert Counter(row for cut in cuts for row in cut) == Counter(rows)
    assert all(1 <= len(cut) <= limit for cut in cuts)


def partitions(rows: list[int]) -> Iterator[list[list[int]]]:
    if not rows:
        yield []
        return
    first, rest = rows[0], rows[1:]
    for partition in partitions(rest):
        yield [[first], *partition]
        for i, part in enumerate(partition):
            yield [*partition[:i], [first, *part], *partition[i + 1 :]]


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    limit=st.integers(1, 6),
    overhead=st.integers(0, 40),
    tokens=st.none() | st.integers(1, 100),
)
def test_no_other_cut_that_is_allowed_costs_less(
    lengths: list[int], limit: int, overhead: int, tokens: int | None
) -> None:
    """A row that is longer than the bound on tokens stands alone."""

    def padded(cut: list[int]) -> int:
        return len(cut) * max(lengths[row] for row in cut)

    def allowed(cut: list[int]) -> bool:
        return len(cut) == 1 or (len(cut) <= limit and (tokens is None or padded(cut) <= tokens))

    def cost(cuts: list[list[int]]) -> int:
        return sum(padded(cut) + overhead for cut in cuts)

    rows = list(range(len(lengths)))
    found = micro_batches(rows, dict(enumerate(lengths)), limit, overhead=overhead, tokens=tokens)
    assert all(allowed(cut) for cut in found)
    assert cost(found) == min(cost(p) for p in partitions(rows) if all(allowed(part) for part in p))


def test_the_cut_does_not_depend_on_the_order_of_the_rows() -> None:
    lengths = {1: 5, 2: 9, 3: 5, 4: 2}
    first = micro_batches([1, 2, 3, 4], lengths, 2, overhead=3)
    assert micro_batches([4, 3, 2, 1], lengths, 2, overhead=3) == first
