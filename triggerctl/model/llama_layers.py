"""All layers of a decoder of Llama's kind over a packing, there and back.

    middle = x + O(attention(turned Q(n), turned K(n), V(n))),  n = norm(x)
    out    = middle + down(silu(gate(m)) · up(m)),              m = norm(middle)

As in `layer_steps.py`, gradients are summed in autograd's order, but for those of matrices that are
multiplied as one (`Matrices.whole`), and TorchScript compiles all of it."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from triggerctl.model.layer_steps import Norm, Over, normed, normed_back, turned, turned_back
from triggerctl.model.llama_attention import Attended, attention, attention_back
from triggerctl.model.lora_matrix import Matrices, times_each, times_each_back, times_the_sum


class Layer(NamedTuple):
    """One layer's weights, those together that multiply the same."""

    before_attention: Norm
    query_key_value: Matrices
    output: Matrices
    before_mlp: Norm
    gate_up: Matrices
    down: Matrices


def with_wholes(layers: list[Layer], wholes: list[Tensor | None]) -> list[Layer]:
    """The same with `Matrices.whole`, of each layer's four in their order, layer after layer."""
    return [
        Layer(
            layer.before_attention,
            Matrices(layer.query_key_value.each, wholes[4 * i]),
            Matrices(layer.output.each, wholes[4 * i + 1]),
            layer.before_mlp,
            Matrices(layer.gate_up.each, wholes[4 * i + 2]),
            Matrices(layer.down.each, wholes[4 * i + 3]),
        )
        for i, layer in enumerate(layers)
    ]


Lows = list[Tensor | None]
"""What lies between A and B of each of some matrices."""

Kept = tuple[
    tuple[Tensor, Tensor, Tensor],  # x, by what its norm multiplied it, and the norm
    tuple[list[Attended], Lows],  # of query, key and value
    tuple[Tensor, Lows],  # attention's outputs; of `output`
    tuple[Tensor, Tensor, Tensor],  # the middle, by what its norm multiplied it, and the norm
    tuple[list[Tensor], Lows],  # gate and up, with `whole` silu(gate) too; of each
    tuple[Tensor, Lows],  # silu(gate) · up; of `down`
]
"""What the way back needs of a layer. Its parts have no names: PyTorch makes a class for a tuple with names
whenever it hands one over."""


def layer(x: Tensor, weights: Layer, over: Over) -> tuple[Tensor, Kept]:
    """x: (tokens, hidden) → the same, and what the way back needs."""
    onednn = over.onednn
    normal, inverse = normed(x, weights.before_attention)
    found, lows = times_each(normal, weights.query_key_value, onednn)
    heads = [x.shape[0], -1, over.size]
    query, key, value = [each.view(heads) for each in found]
    attended, kept_of_attention = attention(turned(query, over), turned(key, over), value, over)
    mixed = attended.flatten(1)
    output, low_output = times_each(mixed, weights.output, onednn)
    middle = x + output[0]
    middle_normal, middle_inverse = normed(middle, weights.before_mlp)
    gate_up, low_gate_up = times_each(middle_normal, weights.gate_up, onednn)
    open_gate = nn.functional.silu(gate_up[0])
    inner = open_gate * gate_up[1]
    if weights.gate_up.whole is not None:
        gate_up.append(open_gate)  # of a small model: memory is there
    down, low_down = times_each(inner, weights.down, onednn)
    kept = (
        (x, inverse, normal),
        (kept_of_attention, lows),
        (mixed, low_output),
        (middle, middle_inverse, middle_normal),
        (gate_up, low_gate_up),
        (inner, low_down),
    )
    return middle + down[0], kept


def layer_back(
    gradient: Tensor, kept: Kept, weights: Layer, to_x: bool, beside: Tensor | None, over: Over
) -> tuple[Tensor | None, list[Tensor]]:
    """The gradient of x, where it is wanted, and those of the adapters: A and B of each matrix, in the order
    in which `Layer` has the matrices. `beside`: the gradient that reaches x past this layer."""
    onednn = over.onednn
    (x, inverse, normal), (attended, lows), (mixed, low_output) = kept[:3]
    (middle, middle_inverse, middle_normal), (gate_up, low_gate_up), (inner, low_down) = kept[3:]
    to_inner, of_down = times_each_back([gradient], inner, low_down, weights.down, True, onednn)
    assert to_inner is not None
    gate, up = gate_up[0], gate_up[1]
    to_up = to_inner * (gate_up[2] if len(gate_up) > 2 else nn.functional.silu(gate))
    to_gate = torch.ops.aten.silu_backward(to_inner.mul_(up), gate)
    to_normal, of_gate_up = times_each_back(
        [to_gate, to_up], middle_normal, low_gate_up, weights.gate_up, True, onednn
    )
    assert to_normal is not None
    to_middle = normed_back(to_normal, middle, middle_inverse, weights.before_mlp, gradient)
    to_mixed, of_output = times_each_back([to_middle], mixed, low_output, weights.output, True, onednn)
    assert to_mixed is not None
    tokens = gradient.shape[0]
    to_query, to_key, to_value = attention_back(
        to_mixed.view([tokens, -1, over.size]), attended, tokens, over
    )
    arriving = [
        turned_back(to_query, over).flatten(1),
        turned_back(to_key, over).flatten(1),
        to_value.flatten(1),
    ]
    to_normal, of_inward = times_each_back(arriving, normal, lows, weights.query_key_value, to_x, onednn)
    found: Tensor | None = None
    if to_normal is not None:
        past = to_middle if beside is None else beside + to_middle
        found = normed_back(to_normal, x, inverse, weights.before_attention, past)
    return found, of_inward + of_output + of_gate_up + of_down


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
        times_the_sum(normal, matrix, over.onednn).view(heads) for matrix in weights.query_key_value.each
    ]
    found, _ = attention(turned(query, over), turned(key, over), value, over)
    middle = x + times_the_sum(found.flatten(1), weights.output.each[0], over.onednn)
    normal = normed(middle, weights.before_mlp)[0]
    gate, up = [times_the_sum(normal, matrix, over.onednn) for matrix in weights.gate_up.each]
    return middle + times_the_sum(nn.functional.silu(gate) * up, weights.down.each[0], over.onednn)
