"""Which rows each optimiser update sees. Pure bookkeeping: no tensors, no model.

An *update* takes up to `size` units of every stream, `size` being batch × accumulation: how they are then cut
into micro-batches changes nothing but memory and speed. A unit is a row or, in a paired stream, a row of each
of its sets. The first stream paces: an epoch is one pass over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from triggerctl.config.finetune import FinetuneConfig
from triggerctl.data.batches import epoch_order
from triggerctl.data.encoding import Encoded
from triggerctl.strategies.base import Phase

Units = dict[str, list[int]]
"""Stream name → indices of the units of one update; a stream that sits out is missing."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The rows of a stream, the `width` rows of a unit side by side."""

    rows: tuple[Encoded, ...]
    width: int = 1

    def __len__(self) -> int:
        return len(self.rows) // self.width

    def length(self, unit: int) -> int:
        """The tokens of a unit's longest row."""
        return max(len(self.rows[row].input_ids) for row in self.indices(unit))

    def indices(self, unit: int) -> range:
        """Where a unit's rows stand in `rows`."""
        return range(unit * self.width, (unit + 1) * self.width)


def make_stream(sets: Sequence[Sequence[Encoded]], *, paired: bool) -> Stream:
    """A stream of one set after the other, or of their rows matched one to one: those that come from the
    same row of the data. A row without its match is left out."""
    if not paired:
        return Stream(tuple(row for rows in sets for row in rows))
    matched = [{row.row: row for row in rows} for rows in sets]
    common = [row for row in matched[0] if all(row in rows for rows in matched)]
    return Stream(tuple(rows[row] for row in common for rows in matched), width=len(sets))


def phase_updates(phase: Phase, lengths: Mapping[str, int], options: FinetuneConfig) -> int:
    """How many optimiser updates a phase takes, `max_steps` heeded; `lengths` in units, by stream."""
    total = phase.epochs * updates_per_epoch(
        lengths, units_per_update(options), synchronized=options.proxy_cycling_mode == "synchronized"
    )
    return min(total, options.max_steps) if options.max_steps else total


def units_per_update(options: FinetuneConfig) -> int:
    """How many units of a stream make an update, at most."""
    return options.per_device_train_batch_size * options.gradient_accumulation_steps


def updates_per_epoch(lengths: Mapping[str, int], size: int, *, synchronized: bool) -> int:
    """How many updates an epoch has; `lengths` in the streams' order, the pacing one first."""
    counts = [-(-length // size) for length in lengths.values()]
    if not counts:
        return 0
    return max(counts) if synchronized else counts[0]


def epoch_updates(
    lengths: Mapping[str, int], size: int, *, seed: int, phase: str, epoch: int, synchronized: bool
) -> list[Units]:
    """The units of every update of one epoch.

    Every stream starts anew, reshuffled, with each epoch. Continuous: a stream that runs out is reshuffled
    and starts again until the pacing one ends. Synchronized: it sits out until the longest ends."""
    count = updates_per_epoch(lengths, size, synchronized=synchronized)
    updates: list[Units] = [{} for _ in range(count)]
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
    units: Sequence[int],
    lengths: Mapping[int, int],
    limit: int,
    *,
    overhead: int,
    tokens: int | None = None,
    padded: bool = True,
) -> list[list[int]]:
    """Cut one update's units of one stream into micro-batches of at most `limit` units, and of at most
    `tokens` tokens where more than one unit is in them, so that tokens plus `overhead` tokens for each
    further forward pass are fewest; `padded`: those of padding count too, as a model that takes units side by
    side passes them. `lengths[i]` is unit i's, in tokens.

    The loss is summed over the update and divided once, so the cut is free to follow the lengths."""
    ordered = sorted(units, key=lambda unit: (lengths[unit], unit))
    best = [0.0] + [float("inf")] * len(ordered)
    start_of = [0] * (len(ordered) + 1)
    before = [0, *accumulate(lengths[unit] for unit in ordered)]
    for end in range(1, len(ordered) + 1):
        longest = lengths[ordered[end - 1]]
        for start in range(max(0, end - limit), end):
            passed = (end - start) * longest if padded else before[end] - before[start]
            if tokens is not None and passed > tokens and end - start > 1:
                continue
            cost = best[start] + passed + overhead
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
