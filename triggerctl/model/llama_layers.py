"""All layers of a decoder of Llama's kind over a packing, there and back.

    middle = x + O(attention(turned Q(n), turned K(n), V(n))),  n = norm(x)
    out    = middle + down(silu(gate(m)) · up(m)),              m = norm(middle)

As in `layer_steps.py`, gradients are summed in autograd's order, and TorchScript compiles all of it."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from triggerctl.model.layer_steps import (
    Attended,
    Norm,
    Over,
    attention,
    attention_back,
    normed,
    normed_back,
    turned,
    turned_back,
)
from triggerctl.model.lora_matrix import Matrix, times, times_back, times_the_sum


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
    gradient: Tensor, kept: Kept, weights: Layer, to_x: bool, beside: Tensor | None, over: Over
) -> tuple[Tensor | None, list[Tensor]]:
    """The gradient of x, where it is wanted, and those of the adapters: A and B of each matrix, in the order
    in which `Layer` has the matrices. `beside`: the gradient that reaches x past this layer."""
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
        past = to_middle if beside is None else beside + to_middle
        found = normed_back(to_normal, x, inverse, weights.before_attention, past)
    return found, of_query + of_key + of_value + of_output + of_gate + of_up + of_down


def layers(
    x: Tensor, weights: list[Layer], last: Norm, over: Over
) -> tuple[list[Tensor], Tensor, Tensor, list[Kept]]:
    """x: (tokens, hidden) → every layer's output, the last one's after the last norm; that one before it, and
    by what it was multiplied there; what the way back needs of each layer."""
    kept: list[Kept] = []
    outputs: list[Tensor] = []
    for each in weights:
        x, of_layer = layer(x, each, over)
        kept.append(of_layer)
        outputs.append(x)
    states, inverse = normed(x, last)
    outputs[-1] = states
    return outputs, x, inverse, kept


def layers_back(
    gradient: Tensor,
    beside: list[Tensor],
    before: Tensor,
    inverse: Tensor,
    kept: list[Kept],
    weights: list[Layer],
    last: Norm,
    over: Over,
) -> list[Tensor]:
    """The gradients of all adapters, layer after layer, from that of the last output and, `beside` it, those
    of the others, or none. The first layer's x is the embedding, which is frozen."""
    found: list[Tensor] = []
    arriving: Tensor | None = normed_back(gradient, before, inverse, last, None)
    for i in range(len(weights) - 1, -1, -1):
        assert arriving is not None
        of_x: Tensor | None = beside[i - 1] if i > 0 and len(beside) > 0 else None
        arriving, of_layer = layer_back(arriving, kept[i], weights[i], i > 0, of_x, over)
        found = of_layer + found
    return found


def layers_only(x: Tensor, weights: list[Layer], last: Norm, over: Over, every: bool) -> list[Tensor]:
    """Every layer's output, or the last one's alone, where no gradient is wanted."""
    outputs: list[Tensor] = []
    for each in weights:
        x = _layer_only(x, each, over)
        if every:
            outputs.append(x)
    outputs = outputs[:-1]
    outputs.append(normed(x, last)[0])
    return outputs


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
