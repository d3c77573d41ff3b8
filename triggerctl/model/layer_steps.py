"""Steps of a decoder layer of Llama's kind over a packing, there and back: norm, rotary positions, attention.

The operations are those of transformers, and on the way back those of PyTorch's autograd; gradients that meet
are summed in its order. So what comes of it is the same, bit for bit.

`fused_llama.py` says why TorchScript compiles this. That knows neither annotations that are put off (by
`from __future__`) nor `zip(strict=…)`."""

from typing import NamedTuple

import torch
from torch import Tensor


class Norm(NamedTuple):
    """x / √(mean x² + ε) · weight, over the last dimension."""

    weight: Tensor
    epsilon: float


class Part(NamedTuple):
    """Sequences whose attention is computed together, as `packing.Group`; mask: (rows, 1, width, longest),
    what is added to each query's scores, None where each sees all keys up to itself."""

    queries: Tensor
    keys: Tensor
    places: Tensor
    mask: Tensor | None


class Over(NamedTuple):
    """The packing that layers are computed over.

    cos, sin: (tokens, 1, size), by what queries and keys are turned; the sines' first half is negative.
    parts:    its sequences, for attention.
    order:    (tokens,) int64, where the parts' outputs, one after the other, hold each token's.
    size:     numbers of a head.
    scaling:  of attention's scores.
    onednn:   whether oneDNN multiplies (`products.py`)."""

    cos: Tensor
    sin: Tensor
    parts: list[Part]
    order: Tensor
    size: int
    scaling: float
    onednn: bool


Attended = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Of a part: queries, keys and values, as attention was given them, outputs, and logarithms of its sums."""


def normed(x: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """x: (tokens, hidden) → the same, and by what each token was multiplied."""
    inverse = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.epsilon)
    return norm.weight * (x * inverse), inverse


def normed_back(gradient: Tensor, x: Tensor, inverse: Tensor, norm: Norm, beside: Tensor | None) -> Tensor:
    """The gradient of x; `beside`: the one that reaches it past the norm."""
    direct = gradient * norm.weight
    of_inverse = (direct * x).sum(-1, keepdim=True)
    found = direct * inverse
    if beside is not None:
        found = beside + found
    of_mean = of_inverse * -0.5 * inverse.pow(3) / x.shape[-1]
    return found + of_mean * (x * 2)


def turned(x: Tensor, over: Over) -> Tensor:
    """Rotary positions: x (tokens, heads, size) → the same."""
    return (x * over.cos).add_(halves_swapped(x) * over.sin)


def turned_back(gradient: Tensor, over: Over) -> Tensor:
    """The gradient of x from that of what came of it."""
    return (gradient * over.cos).add_(halves_swapped(gradient * over.sin))


def halves_swapped(x: Tensor) -> Tensor:
    """The halves of the last dimension in the other order."""
    half = x.shape[-1] // 2
    return torch.cat((x[..., half:], x[..., :half]), -1)


def gathered(tokens: Tensor, where: Tensor) -> Tensor:
    """tokens (tokens, heads, size) at where (rows, width) → (rows, heads, width, size)."""
    found = tokens.index_select(0, where.flatten())
    return found.view(where.shape[0], where.shape[1], tokens.shape[1], tokens.shape[2]).transpose(1, 2)


def given_back(gradient: Tensor, where: Tensor, shape: list[int]) -> Tensor:
    """The gradient of the tokens, of that shape, from that of what was gathered of them."""
    found = torch.zeros(shape, dtype=gradient.dtype)
    return found.index_add_(0, where.flatten(), gradient.transpose(1, 2).flatten(0, 1))


def attention(query: Tensor, key: Tensor, value: Tensor, over: Over) -> tuple[Tensor, list[Attended]]:
    """query (tokens, heads, size) and key, value (tokens, key heads, size) → outputs (tokens, heads, size),
    and what the way back needs of each part."""
    kept: list[Attended] = []
    outputs: list[Tensor] = []
    for part in over.parts:
        queries, keys = gathered(query, part.queries), gathered(key, part.keys)
        values = gathered(value, part.keys)
        found, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            queries, keys, values, 0.0, part.mask is None, attn_mask=part.mask, scale=over.scaling
        )
        kept.append((queries, keys, values, found, log_sums))
        outputs.append(found.transpose(1, 2).flatten(0, 1).index_select(0, part.places))
    together = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return together.index_select(0, over.order), kept


def attention_back(
    gradient: Tensor, kept: list[Attended], tokens: int, over: Over
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value, (tokens, heads, size) each, from that of the outputs."""
    lengths = [part.places.shape[0] for part in over.parts]
    together = torch.zeros([sum(lengths), gradient.shape[1], over.size], dtype=gradient.dtype)
    outputs = together.index_add_(0, over.order, gradient).split(lengths)
    sums: list[Tensor] = []
    for i in range(len(kept) - 1, -1, -1):
        part = over.parts[i]
        query, key, value, found, log_sums = kept[i]
        rows = torch.zeros([part.queries.numel(), gradient.shape[1], over.size], dtype=gradient.dtype)
        rows.index_add_(0, part.places, outputs[i])
        arriving = rows.view(part.queries.shape[0], part.queries.shape[1], gradient.shape[1], over.size)
        to_query, to_key, to_value = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            arriving.transpose(1, 2),
            query,
            key,
            value,
            found,
            log_sums,
            0.0,
            part.mask is None,
            attn_mask=part.mask,
            scale=over.scaling,
        )
        key_shape = [tokens, key.shape[1], over.size]
        of_part = [
            given_back(to_query, part.queries, [tokens, gradient.shape[1], over.size]),
            given_back(to_key, part.keys, key_shape),
            given_back(to_value, part.keys, key_shape),
        ]
        sums = of_part if len(sums) == 0 else [one + other for one, other in zip(sums, of_part)]  # noqa: B905
    return sums[0], sums[1], sums[2]
