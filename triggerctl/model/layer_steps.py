"""What a decoder of Llama's kind computes over a packing, there and back, in functions of tensors alone.

    middle = x + O(attention(turned Q(n), turned K(n), V(n))),  n = norm(x)
    out    = middle + down(silu(gate(m)) · up(m)),              m = norm(middle)

The operations are those of transformers, and on the way back those of PyTorch's autograd; gradients that meet
are summed in its order. So what comes of it is the same, bit for bit.

`fused_llama.py` says why TorchScript compiles this. That knows neither annotations that are put off (by
`from __future__`) nor `zip(strict=…)`."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from triggerctl.model.lora_matrix import Matrix, times, times_back, times_the_sum


class Norm(NamedTuple):
    """x / √(mean x² + ε) · weight, over the last dimension."""

    weight: Tensor
    epsilon: float


class Layer(NamedTuple):
    """One layer's weights."""

    before_attention: Norm
    query: Matrix
    key: Matrix
    value: Matrix
    output: Matrix
    before_mlp: Norm
    gate: Matrix
    up: Matrix
    down: Matrix


class Part(NamedTuple):
    """Sequences whose attention is computed together, as `packing.Group`; mask: (rows, 1, width, longest),
    what is added to each query's scores, None where each sees all keys up to itself."""

    queries: Tensor
    keys: Tensor
    places: Tensor
    mask: Tensor | None


class Over(NamedTuple):
    """The packing that layers are computed over.

    cos, sin: (tokens, 1, size), by what queries and keys are turned.
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

Kept = tuple[
    tuple[Tensor, Tensor, Tensor],  # x, by what its norm multiplied it, and the norm
    tuple[Tensor | None, Tensor | None, Tensor | None],  # what lies between A and B of query, key and value
    list[Attended],
    tuple[Tensor, Tensor | None],  # attention's outputs, and what lies between A and B of `output`
    tuple[Tensor, Tensor, Tensor],  # the middle, by what its norm multiplied it, and the norm
    tuple[Tensor, Tensor | None, Tensor, Tensor | None],  # gate and up, and what lies between A and B of each
    tuple[Tensor, Tensor | None],  # silu(gate) · up, and what lies between A and B of `down`
]
"""What the way back needs of a layer. Its parts have no names: PyTorch makes a class for a tuple with names
whenever it hands one over."""


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
    half = x.shape[-1] // 2
    return x * over.cos + torch.cat((-x[..., half:], x[..., :half]), -1) * over.sin


def turned_back(gradient: Tensor, over: Over) -> Tensor:
    """The gradient of x from that of what came of it."""
    half = gradient.shape[-1] // 2
    of_sin = gradient * over.sin
    return torch.cat((of_sin[..., half:], -of_sin[..., :half]), -1) + gradient * over.cos


def gathered(tokens: Tensor, where: Tensor) -> Tensor:
    """tokens (tokens, heads, size) at where (rows, width) → (rows, heads, width, size)."""
    found = tokens.index_select(0, where.flatten())
    return found.view(where.shape[0], where.shape[1], tokens.shape[1], tokens.shape[2]).transpose(1, 2)


def given_back(gradient: Tensor, where: Tensor, shape: list[int]) -> Tensor:
    """The gradient of the tokens, of that shape, from that of what was gathered of them."""
    found = torch.zeros(shape, dtype=gradient.dtype)
    return found.index_add_(0, where.flatten(), gradient.transpose(1, 2).flatten(0, 1))


def attention(query: Tensor, key: Tensor, value: Tensor, over: Over) -> tuple[Tensor, list[Attended]]:
    """query (tokens, heads, size) and key, value (tokens, key heads, size) → (tokens, heads, size)."""
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


def layer(x: Tensor, weights: Layer, over: Over) -> tuple[Tensor, Kept]:
    """x: (tokens, hidden) → the same, and what the way back needs."""
    onednn = over.onednn
    normal, inverse = normed(x, weights.before_attention)
    query, low_query = times(normal, weights.query, onednn)
    key, low_key = times(normal, weights.key, onednn)
    value, low_value = times(normal, weights.value, onednn)
    heads = [x.shape[0], -1, over.size]
    found, attended = attention(
        turned(query.view(heads), over), turned(key.view(heads), over), value.view(heads), over
    )
    mixed = found.flatten(1)
    output, low_output = times(mixed, weights.output, onednn)
    middle = x + output
    middle_normal, middle_inverse = normed(middle, weights.before_mlp)
    gate, low_gate = times(middle_normal, weights.gate, onednn)
    up, low_up = times(middle_normal, weights.up, onednn)
    inner = nn.functional.silu(gate) * up
    down, low_down = times(inner, weights.down, onednn)
    kept = (
        (x, inverse, normal),
        (low_query, low_key, low_value),
        attended,
        (mixed, low_output),
        (middle, middle_inverse, middle_normal),
        (gate, low_gate, up, low_up),
        (inner, low_down),
    )
    return middle + down, kept


def layer_back(
    gradient: Tensor, kept: Kept, weights: Layer, to_x: bool, over: Over
) -> tuple[Tensor | None, list[Tensor]]:
    """The gradient of x, where it is wanted, and those of the adapters: A and B of each matrix, in the order
    in which `Layer` has the matrices."""
    onednn = over.onednn
    (x, inverse, normal), (low_query, low_key, low_value), attended, (mixed, low_output) = kept[:4]
    (middle, middle_inverse, middle_normal), (gate, low_gate, up, low_up), (inner, low_down) = kept[4:]
    to_inner, of_down = times_back(gradient, inner, low_down, weights.down, True, onednn)
    assert to_inner is not None
    to_up = to_inner * nn.functional.silu(gate)
    to_gate = torch.ops.aten.silu_backward(to_inner * up, gate)
    from_up, of_up = times_back(to_up, middle_normal, low_up, weights.up, True, onednn)
    from_gate, of_gate = times_back(to_gate, middle_normal, low_gate, weights.gate, True, onednn)
    assert from_up is not None
    assert from_gate is not None
    to_middle = normed_back(from_up + from_gate, middle, middle_inverse, weights.before_mlp, gradient)
    to_mixed, of_output = times_back(to_middle, mixed, low_output, weights.output, True, onednn)
    assert to_mixed is not None
    tokens = gradient.shape[0]
    to_query, to_key, to_value = attention_back(
        to_mixed.view([tokens, -1, over.size]), attended, tokens, over
    )
    from_value, of_value = times_back(to_value.flatten(1), normal, low_value, weights.value, to_x, onednn)
    from_key, of_key = times_back(
        turned_back(to_key, over).flatten(1), normal, low_key, weights.key, to_x, onednn
    )
    from_query, of_query = times_back(
        turned_back(to_query, over).flatten(1), normal, low_query, weights.query, to_x, onednn
    )
    found: Tensor | None = None
    if from_value is not None and from_key is not None and from_query is not None:
        to_normal = from_value + from_key + from_query
        found = normed_back(to_normal, x, inverse, weights.before_attention, to_middle)
    return found, of_query + of_key + of_value + of_output + of_gate + of_up + of_down


def layers(
    x: Tensor, weights: list[Layer], last: Norm, over: Over
) -> tuple[Tensor, Tensor, Tensor, list[Kept]]:
    """x: (tokens, hidden) → final states after the last norm; the states before that and what it multiplied
    by; what the way back needs of each layer."""
    kept: list[Kept] = []
    for each in weights:
        x, of_layer = layer(x, each, over)
        kept.append(of_layer)
    states, inverse = normed(x, last)
    return states, x, inverse, kept


def layers_back(
    gradient: Tensor,
    before: Tensor,
    inverse: Tensor,
    kept: list[Kept],
    weights: list[Layer],
    last: Norm,
    over: Over,
) -> list[Tensor]:
    """The gradients of all adapters, layer after layer, from that of the final states. The first layer's x is
    the embedding, which is frozen."""
    found: list[Tensor] = []
    arriving: Tensor | None = normed_back(gradient, before, inverse, last, None)
    for i in range(len(weights) - 1, -1, -1):
        assert arriving is not None
        arriving, of_layer = layer_back(arriving, kept[i], weights[i], i > 0, over)
        found = of_layer + found
    return found


def layers_only(x: Tensor, weights: list[Layer], last: Norm, over: Over) -> Tensor:
    """Final states, where no gradient is wanted."""
    for each in weights:
        x = _layer_only(x, each, over)
    return normed(x, last)[0]


def _layer_only(x: Tensor, weights: Layer, over: Over) -> Tensor:
    normal = normed(x, weights.before_attention)[0]
    heads = [x.shape[0], -1, over.size]
    query, key, value = [
        times_the_sum(normal, matrix, over.onednn).view(heads)
        for matrix in [weights.query, weights.key, weights.value]
    ]
    found, _ = attention(turned(query, over), turned(key, over), value, over)
    middle = x + times_the_sum(found.flatten(1), weights.output, over.onednn)
    normal = normed(middle, weights.before_mlp)[0]
    gate = times_the_sum(normal, weights.gate, over.onednn)
    inner = nn.functional.silu(gate) * times_the_sum(normal, weights.up, over.onednn)
    return middle + times_the_sum(inner, weights.down, over.onednn)
