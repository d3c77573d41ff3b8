"""Which rows each optimiser update sees. Pure bookkeeping: no tensors, no model.

An *update* takes up to `size` rows of every stream, `size` being batch × accumulation: how the rows are then
cut into micro-batches changes nothing but memory and speed. The first stream paces: an epoch is one pass over
it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from triggerctl.data.batches import epoch_order

Rows = dict[str, list[int]]
"""Stream name → indices of the rows of one update; a stream that sits out is missing."""


def updates_per_epoch(lengths: Mapping[str, int], size: int, *, synchronized: bool) -> int:
    """How many updates an epoch has; `lengths` in the streams' order, the pacing one first."""
    counts = [-(-length // size) for length in lengths.values()]
    if not counts:
        return 0
    return max(counts) if synchronized else counts[0]


def epoch_updates(
    lengths: Mapping[str, int], size: int, *, seed: int, phase: str, epoch: int, synchronized: bool
) -> list[Rows]:
    """The rows of every update of one epoch.

    Every stream starts anew, reshuffled, with each epoch. Continuous: a stream that runs out is reshuffled
    and starts again until the pacing one ends. Synchronized: it sits out until the longest ends."""
    count = updates_per_epoch(lengths, size, synchronized=synchronized)
    updates: list[Rows] = [{} for _ in range(count)]
    for stream, length in lengths.items():
        batches: list[list[int]] = []
        passes = 0
        while length and len(batches) < count and not (synchronized and passes):
            name = f"{phase}/{stream}" if passes == 0 else f"{phase}/{stream}/again {passes}"
            batches += _cut(epoch_order(seed, name, epoch, length), size)
            passes += 1
        for update, batch in zip(updates, batches, strict=False):
            update[stream] = batch
    return updates


def micro_batches(
    rows: Sequence[int], lengths: Mapping[int, int], limit: int, *, overhead: int
) -> list[list[int]]:
    """Cut one update's rows of one stream into micro-batches of at most `limit` rows, so that padded tokens
    plus `overhead` tokens for each further forward pass are fewest. `lengths[i]` is row i's length in tokens.

    The loss is summed over the update and divided once, so the cut is free to follow the lengths."""
    ordered = sorted(rows, key=lambda row: (lengths[row], row))
    best = [0.0] + [float("inf")] * len(ordered)
    start_of = [0] * (len(ordered) + 1)
    for end in range(1, len(ordered) + 1):
        longest = lengths[ordered[end - 1]]
        for start in range(max(0, end - limit), end):
            cost = best[start] + (end - start) * longest + overhead
            if cost < best[end]:
                best[end], start_of[end] = cost, start
    cuts: list[list[int]] = []
    end = len(ordered)
    while end:
        cuts.append(ordered[start_of[end] : end])
        end = start_of[end]
    return cuts[::-1]


def _cut(order: Sequence[int], size: int) -> list[list[int]]:
    return [list(order[start : start + size]) for start in range(0, len(order), size)]
