"""What layers of Llama's kind are computed over, and steps of one, there and back: norm and rotary positions;
`llama_attention.py` has attention.

The operations are those of transformers, and on the way back those of PyTorch's autograd; gradients that meet
are summed in its order. So what comes of it is the same, bit for bit.

`fused_llama.py` says why TorchScript compiles this. That knows neither annotations that are put off (by
`from __future__`) nor `zip(strict=…)`."""

from typing import NamedTuple

import torch
from torch import Tensor

SHORT = 64
"""Keys up to which attention goes head after head."""


class Norm(NamedTuple):
    """x / √(mean x² + ε) · weight, over the last dimension."""

    weight: Tensor
    epsilon: float


class Sequences(NamedTuple):
    """As `packing.Group`."""

    queries: Tensor
    keys: Tensor
    starts: Tensor
    places: Tensor
    causal: bool


class Laid(NamedTuple):
    """Where tokens lie, as in `packing.Packing`."""

    ids: Tensor
    positions: Tensor
    groups: list[Sequences]
    order: Tensor


class Turns(NamedTuple):
    """What all packings share.

    cos, sin: (positions, size), of every position; the sines' first half is negative.
    heads:    of queries, where keys have as many; 0 where attention is to go in one piece.
    The others are `Over`'s."""

    cos: Tensor
    sin: Tensor
    size: int
    heads: int
    scaling: float
    onednn: bool


class Part(NamedTuple):
    """Sequences whose attention is computed together, as `packing.Group`.

    queries, keys: (rows, width or longest), which of the tokens each is. Head after head: (heads · rows, …),
                   which of all tokens' heads.
    mask:          what is added to each query's scores, (rows, 1, width, longest), None where each sees all
                   keys up to itself. Head after head: (heads · rows, width, longest)."""

    queries: Tensor
    keys: Tensor
    mask: Tensor | None


class Over(NamedTuple):
    """The packing that layers are computed over.

    cos, sin: (tokens, 1, size), by what queries and keys are turned; the sines' first half is negative.
    parts:    its sequences, for attention.
    by_head:  whether attention goes head after head.
    where:    which of the parts' queries, one part after the other, each token is, (tokens,), or each head of
              each token, (tokens · heads,).
    size:     numbers of a head.
    scaling:  of attention's scores.
    onednn:   whether oneDNN multiplies (`products.py`)."""

    cos: Tensor
    sin: Tensor
    parts: list[Part]
    by_head: bool
    where: Tensor
    size: int
    scaling: float
    onednn: bool


def over(laid: Laid, turns: Turns, short: int = SHORT) -> Over:
    """What layers are computed over, where the tokens lie so."""
    cos, sin = [each.index_select(0, laid.positions).unsqueeze(1) for each in (turns.cos, turns.sin)]
    by_head = turns.heads > 0 and max([group.keys.shape[1] for group in laid.groups]) <= short
    heads = torch.arange(turns.heads)
    parts: list[Part] = []
    places: list[Tensor] = []
    before = 0
    for group in laid.groups:
        queries = group.queries.numel()
        if by_head:
            parts.append(_by_head(group, heads, cos))
            places.append((group.places.unsqueeze(-1) + heads * queries) + before * turns.heads)
        else:
            parts.append(Part(group.queries, group.keys, None if group.causal else _mask(group, cos)))
            places.append(group.places + before)
        before += queries
    where = torch.cat(places).index_select(0, laid.order).flatten()
    return Over(cos, sin, parts, by_head, where, turns.size, turns.scaling, turns.onednn)


def _by_head(group: Sequences, heads: Tensor, like: Tensor) -> Part:
    queries, keys = [
        (where * heads.shape[0] + heads.view(-1, 1, 1)).flatten(0, 1) for where in (group.queries, group.keys)
    ]
    return Part(queries, keys, _mask(group, like).squeeze(1).repeat(heads.shape[0], 1, 1))


def last_seen(starts: Tensor, width: int, longest: int) -> Tensor:
    """Which key is the last that each query sees, (rows, width, 1): itself, or the last there is."""
    last = starts.unsqueeze(1) + torch.arange(width, device=starts.device)
    return last.clamp(max=longest - 1).unsqueeze(-1)


def _mask(group: Sequences, like: Tensor) -> Tensor:
    """As `packing.Group.mask`, as numbers to be added."""
    longest = group.keys.shape[1]
    unseen = torch.arange(longest) > last_seen(group.starts, group.queries.shape[1], longest)
    mask = torch.zeros(unseen.shape, dtype=like.dtype).masked_fill_(unseen, -float("inf"))
    return mask.unsqueeze(1)


def normed(x: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """x: (tokens, hidden) → the same, and by what each token was multiplied."""
    inverse = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.epsilon)
    return (x * inverse).mul_(norm.weight), inverse


def normed_back(gradient: Tensor, x: Tensor, inverse: Tensor, norm: Norm, beside: Tensor | None) -> Tensor:
    """The gradient of x; `beside`: the one that reaches it past the norm."""
    direct = gradient * norm.weight
    of_inverse = (direct * x).sum(-1, keepdim=True)
    found = direct.mul_(inverse)
    if beside is not None:
        found = found.add_(beside)
    of_mean = of_inverse * -0.5 * inverse.pow(3) / x.shape[-1]
    return found.add_(x * (of_mean * 2))


def turned(x: Tensor, over: Over) -> Tensor:
    """Rotary positions: x (tokens, heads, size) → the same."""
    return (x * over.cos).add_(halves_swapped(x).mul_(over.sin))


def turned_back(gradient: Tensor, over: Over) -> Tensor:
    """The gradient of x from that of what came of it."""
    return (gradient * over.cos).add_(halves_swapped(gradient * over.sin))


def halves_swapped(x: Tensor) -> Tensor:
    """The halves of the last dimension in the other order."""
    half = x.shape[-1] // 2
    return torch.cat((x[..., half:], x[..., :half]), -1)
