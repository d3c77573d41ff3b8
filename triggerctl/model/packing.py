"""Sequences end to end instead of side by side: a model's layers see real tokens only, and what several
sequences begin with is passed once.

Everything in a decoder but attention treats each token by itself, so that padding is needed in attention
alone. A `Packing` says which tokens attend to which; `packed_attention.py` heeds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from triggerctl.data.integers import integers
from triggerctl.model.layer_steps import last_seen

EXCHANGES = 1024
"""Pairs of sequences of which the best to exchange is looked for. Where there are more, pieces are alike."""
NONE = -1
"""No sequence: it stands for the other of a pair."""


def as_it_is(tokens: int) -> int:
    """For packings without filler."""
    return tokens


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences whose attention is computed together, padded to the longest of them.

    queries: (rows, width) int64, which token of the packing each query is; anything where there is none.
    keys:    (rows, longest) int64, the same for keys: every token from the sequence's first on.
    starts:  (rows,) int64, where in its sequence a row's first query stands.
    places:  (tokens,) int64, where in the flattened queries the real ones are.
    causal:  whether the queries are the keys: then no mask is needed."""

    queries: Tensor
    keys: Tensor
    starts: Tensor
    places: Tensor
    causal: bool

    def mask(self, window: int | None) -> Tensor:
        """(rows, 1, width, longest) bool: which keys each query sees. A query sees itself at least, also one
        that isn't there."""
        width, longest = self.queries.shape[1], self.keys.shape[1]
        last = last_seen(self.starts, width, longest)
        keys = torch.arange(longest, device=self.starts.device)
        seen = keys <= last
        if window is not None:
            seen &= keys > last - window
        return seen.unsqueeze(1)

    def to(self, device: torch.device) -> Group:
        """The same on another device; copies to a GPU don't wait."""
        queries, keys, starts, places = (
            sent(each, device) for each in (self.queries, self.keys, self.starts, self.places)
        )
        return Group(queries, keys, starts, places, self.causal)


@dataclass(frozen=True, slots=True)
class Packing:
    """Tokens end to end.

    ids, positions: (tokens,) int64, and each one's place in its sequence.
    groups:         their sequences, for attention.
    order:          (tokens,) int64, where the groups' outputs, one after the other, hold each token's.
    longest:        tokens of the longest sequence.
    filler:         how many tokens at the end are of no sequence: what the model says there means nothing.
    windows:        the sliding windows that layers have asked for, given this."""

    ids: Tensor
    positions: Tensor
    groups: tuple[Group, ...]
    order: Tensor
    longest: int
    filler: int
    windows: set[int | None] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Row:
    """A sequence's part in attention: the tokens of the packing that are its own, and all it consists of."""

    own: Sequence[int]
    path: Sequence[int]


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequences in packings that know nothing of each other.

    packings: whose tokens are counted through, one packing after the other.
    at:       where each sequence's tokens are."""

    packings: tuple[Packing, ...]
    at: tuple[Sequence[int], ...]

    @property
    def tokens(self) -> int:
        """How many real ones go through the model."""
        return sum(packing.ids.numel() for packing in self.packings) - self.filler

    @property
    def filler(self) -> int:
        """How many others do."""
        return sum(packing.filler for packing in self.packings)

    def places(self) -> Tensor:
        """`at` of all sequences, one after the other: (places,) int64, in the CPU's memory."""
        return integers([token for tokens in self.at for token in tokens])


def pack(
    sequences: Sequence[Sequence[int]], device: torch.device, *, rounded: Callable[[int], int] = as_it_is
) -> Packed:
    """One packing of the sequences as they are, one after the other, filled up to `rounded(tokens)`."""
    ends = list(accumulate(map(len, sequences), initial=0))
    at = tuple(list(range(start, end)) for start, end in pairwise(ends))
    positions = [place for sequence in sequences for place in range(len(sequence))]
    ids = [token for sequence in sequences for token in sequence]
    return Packed((_packing(ids, positions, [_Row(own, own) for own in at], device, rounded),), at)


def pack_shared(
    sequences: Sequence[Sequence[int]],
    device: torch.device,
    *,
    parts: int = 1,
    rounded: Callable[[int], int] = as_it_is,
) -> Packed:
    """The sequences with what they begin with in common there once, in at most so many packings of about as
    many tokens each, filled up to `rounded(tokens)`; what sequences of two packings share is in both."""
    ordered = sorted(range(len(sequences)), key=lambda i: list(sequences[i]))
    packings: list[Packing] = []
    at: list[Sequence[int]] = [()] * len(sequences)
    before = 0
    for members in _cut(ordered, sequences, parts) if parts > 1 else [ordered]:
        packing, paths = _shared([sequences[i] for i in members], device, rounded)
        for i, path in zip(members, paths, strict=True):
            at[i] = [before + place for place in path]
        packings.append(packing)
        before += packing.ids.numel()
    return Packed(tuple(packings), tuple(at))


def _cut(ordered: Sequence[int], sequences: Sequence[Sequence[int]], parts: int) -> list[list[int]]:
    """Indices of sequences, in at most so many pieces of about as many tokens that neighbours don't share."""
    own = dict(zip(ordered, own_tokens([sequences[i] for i in ordered]), strict=True))
    ends = list(accumulate(own.values(), initial=0))
    pieces: dict[int, list[int]] = {}
    for i, (start, end) in zip(ordered, pairwise(ends), strict=True):
        pieces.setdefault((start + end) * parts // (2 * ends[-1] + 1), []).append(i)
    return _evened_out(list(pieces.values()), ordered, sequences, own)


def _evened_out(
    pieces: list[list[int]],
    ordered: Sequence[int],
    sequences: Sequence[Sequence[int]],
    own: Mapping[int, int],
) -> list[list[int]]:
    """One sequence moved from the largest piece to the smallest, or two exchanged, where the largest is then
    smaller. own: tokens that each has beside what it shares with the one before it."""
    sizes = [_together(piece, sequences) for piece in pieces]
    large, small = sizes.index(max(sizes)), sizes.index(min(sizes))
    apart = sizes[large] - sizes[small]
    if len(pieces[large]) * len(pieces[small]) > EXCHANGES:
        return pieces
    moves = [
        (abs(apart - 2 * (own[i] - own.get(j, 0))), i, j)
        for i in pieces[large][1:]
        for j in (*pieces[small][1:], NONE)
    ]
    if not moves or (best := min(moves))[0] >= apart:
        return pieces
    rank = {i: number for number, i in enumerate(ordered)}
    _, there, back = best
    changed = list(pieces)
    changed[large] = sorted({*pieces[large], back} - {there, NONE}, key=rank.__getitem__)
    changed[small] = sorted({*pieces[small], there} - {back}, key=rank.__getitem__)
    # What a sequence shares with its neighbours it has for itself elsewhere.
    return changed if max(_together(piece, sequences) for piece in changed) < max(sizes) else pieces


def _together(piece: Sequence[int], sequences: Sequence[Sequence[int]]) -> int:
    """Tokens of sorted sequences, what neighbours share counted once."""
    return sum(own_tokens([sequences[i] for i in piece]))


def _shared(
    sequences: Sequence[Sequence[int]], device: torch.device, rounded: Callable[[int], int]
) -> tuple[Packing, list[list[int]]]:
    """Sorted sequences in one packing; also where in it each one's tokens are."""
    rows: list[_Row] = []
    ids: list[int] = []
    positions: list[int] = []
    paths: list[list[int]] = []
    before: Sequence[int] = ()
    for sequence in sequences:
        shared = common_length(before, sequence)
        own = list(range(len(ids), len(ids) + len(sequence) - shared))
        path = (paths[-1][:shared] if paths else []) + own
        if own:
            rows.append(_Row(own, path))
        ids += sequence[shared:]
        positions += range(shared, len(sequence))
        paths.append(path)
        before = sequence
    return _packing(ids, positions, rows, device, rounded), paths


def own_tokens(ordered: Sequence[Sequence[int]]) -> list[int]:
    """How many tokens each of sorted sequences has beside what it shares with the one before it."""
    pairs = zip([(), *ordered], ordered, strict=False)
    return [len(one) - common_length(before, one) for before, one in pairs]


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


def _packing(
    ids: Sequence[int],
    positions: Sequence[int],
    rows: Sequence[_Row],
    device: torch.device,
    rounded: Callable[[int], int],
) -> Packing:
    alike = _alike(rows)
    places = [token for members in alike for row in members for token in row.own]
    filler = rounded(len(ids)) - len(ids)
    order = torch.zeros(len(places) + filler, dtype=torch.int64)
    order[integers(places)] = torch.arange(len(places))
    return Packing(
        sent(integers([*ids, *[ids[0]] * filler]), device),
        sent(integers([*positions, *[0] * filler]), device),
        tuple(_group(members).to(device) for members in alike),
        sent(order, device),
        max(len(row.path) for row in rows),
        filler,
    )


def _alike(rows: Sequence[_Row]) -> list[list[_Row]]:
    """Rows of like sizes together: at most about half of a group is padding, in attention alone."""
    groups: list[list[_Row]] = []
    for row in sorted(rows, key=lambda row: (-len(row.own), -len(row.path))):
        if groups and 2 * len(row.own) >= len(groups[-1][0].own):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _group(rows: Sequence[_Row]) -> Group:
    width = max(len(row.own) for row in rows)
    longest = max(len(row.path) for row in rows)
    queries = integers([_filled(row.own, width) for row in rows])
    keys = integers([_filled(row.path, longest) for row in rows])
    starts = integers([len(row.path) - len(row.own) for row in rows])
    places = integers([i * width + place for i, row in enumerate(rows) for place in range(len(row.own))])
    return Group(queries, keys, starts, places, causal=all(len(row.own) == len(row.path) for row in rows))


def _filled(tokens: Sequence[int], width: int) -> list[int]:
    return [*tokens, *[tokens[0]] * (width - len(tokens))]


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The same on another device; a copy to a GPU doesn't wait."""
    if device.type == "cpu":
        return tensor
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
