"""Attention over a packing, there and back, in one of two ways.

In one piece it is transformers' and PyTorch's, bit for bit. Head after head it is the same products, of many
small matrices: for short sequences that takes two thirds of the time.

As in `layer_steps.py`, TorchScript compiles all of it."""

import torch
from torch import Tensor

from triggerctl.model.layer_steps import Over, Part

Attended = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]
"""Of a part: queries, keys and values, as attention was given them; its outputs and logarithms of its sums,
or what it weighs values by and None."""


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
        if over.by_head:
            found, of_part = _head_by_head(query, key, value, part, over.scaling)
        else:
            found, of_part = _in_one(query, key, value, part, over.scaling)
        kept.append(of_part)
        outputs.append(found)
    together = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return together.index_select(0, over.where).view(query.shape), kept


def _in_one(query: Tensor, key: Tensor, value: Tensor, part: Part, scaling: float) -> tuple[Tensor, Attended]:
    queries, keys = gathered(query, part.queries), gathered(key, part.keys)
    values = gathered(value, part.keys)
    found, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        queries, keys, values, 0.0, part.mask is None, attn_mask=part.mask, scale=scaling
    )
    return found.transpose(1, 2).flatten(0, 1), (queries, keys, values, found, log_sums)


def _head_by_head(
    query: Tensor, key: Tensor, value: Tensor, part: Part, scaling: float
) -> tuple[Tensor, Attended]:
    mask = part.mask
    assert mask is not None
    queries, keys, values = [
        each.flatten(0, 1).index_select(0, where.flatten()).view(where.shape[0], where.shape[1], -1)
        for each, where in [(query, part.queries), (key, part.keys), (value, part.keys)]
    ]
    weights = torch.softmax(torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=scaling), -1)
    return torch.bmm(weights, values).flatten(0, 1), (queries, keys, values, weights, None)


def attention_back(
    gradient: Tensor, kept: list[Attended], tokens: int, over: Over
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value, (tokens, heads, size) each, from that of the outputs."""
    arriving = gradient.flatten(0, 1) if over.by_head else gradient
    sizes = [part.queries.numel() for part in over.parts]
    rows = torch.zeros([sum(sizes)] + list(arriving.shape[1:]), dtype=gradient.dtype)  # noqa: RUF005
    outputs = rows.index_add_(0, over.where, arriving).split(sizes)
    sums: list[Tensor] = []
    for i in range(len(kept) - 1, -1, -1):
        part = over.parts[i]
        if over.by_head:
            of_part = _head_by_head_back(outputs[i], kept[i], part, list(gradient.shape), over.scaling)
        else:
            of_part = _in_one_back(outputs[i], kept[i], part, tokens, over.scaling)
        sums = of_part if len(sums) == 0 else [one + other for one, other in zip(sums, of_part)]  # noqa: B905
    return sums[0], sums[1], sums[2]


def _in_one_back(rows: Tensor, kept: Attended, part: Part, tokens: int, scaling: float) -> list[Tensor]:
    query, key, value, found, log_sums = kept
    heads, size = rows.shape[1], rows.shape[2]
    arriving = rows.view(part.queries.shape[0], part.queries.shape[1], heads, size)
    assert log_sums is not None
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
        scale=scaling,
    )
    key_shape = [tokens, key.shape[1], size]
    return [
        given_back(to_query, part.queries, [tokens, heads, size]),
        given_back(to_key, part.keys, key_shape),
        given_back(to_value, part.keys, key_shape),
    ]


def _head_by_head_back(
    rows: Tensor, kept: Attended, part: Part, shape: list[int], scaling: float
) -> list[Tensor]:
    queries, keys, values, weights, _ = kept
    arriving = rows.view(queries.shape)
    to_weights = torch.bmm(arriving, values.transpose(1, 2))
    to_scores = torch.ops.aten._softmax_backward_data(to_weights, weights, -1, weights.dtype).mul_(scaling)
    of_part: list[Tensor] = []
    for found, where in [
        (torch.bmm(to_scores, keys), part.queries),
        (torch.bmm(to_scores.transpose(1, 2), queries), part.keys),
        (torch.bmm(weights.transpose(1, 2), arriving), part.keys),
    ]:
        of_heads = torch.zeros([shape[0] * shape[1], shape[2]], dtype=rows.dtype)
        of_part.append(of_heads.index_add_(0, where.flatten(), found.flatten(0, 1)).view(shape))
    return of_part
