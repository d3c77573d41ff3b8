"""Llama's layers over a packing as one call, there and one back, on a CPU in float32 or float64; and there,
through the head and back as one call, where the sum of log-probabilities is all that is asked.

A small model's operations are over before Python has begun the next, and only one thread of a process can be
in Python at a time: two lanes (`threads.py`) would spend a third of their time handing that right to and fro.
So the functions of `llama_layers.py` and `llama_likelihood.py` are compiled to run without it
(`programs.py`).

What a model is asked beyond that (a cache, dropout, checkpointing, weights trained beside an adapter's, an
embedding with an adapter) is left to transformers' own. Hooks inside the layers are not called."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel
from transformers.activations import SiLUActivation
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaForCausalLM,
    LlamaMLP,
    LlamaModel,
    LlamaRMSNorm,
)

from triggerctl.model import llama_layers, llama_likelihood, lora_matrix
from triggerctl.model.evaluating import evaluating
from triggerctl.model.fused_lora import PLAIN, FusedLinear, is_trained
from triggerctl.model.layer_steps import Laid, Norm, Over, Sequences, Turns, over
from triggerctl.model.llama_layers import Layer
from triggerctl.model.llama_likelihood import Head, Targets
from triggerctl.model.lora_matrix import Matrices, Matrix
from triggerctl.model.packed_attention import heeds_packing, packed_states
from triggerctl.model.packing import Packing, pack_shared
from triggerctl.model.products import takes_onednn
from triggerctl.model.programs import run
from triggerctl.model.threads import ahead
from triggerctl.model.traits import keeps_state

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

WHOLE_AT_MOST = 2**24
"""Numbers in a model's layers up to which W + s B A is made, for as long as the weights stay: 64 MiB in
float32. A larger model's products gain next to nothing by it."""

PIECES = 4
"""In which that is made: a thread that has nothing else to do takes the next."""

Piece = Sequence[Sequence[Matrix]]
"""Some of the matrices, those together that multiply the same."""

Wholes = list[Tensor | None]
"""`Matrices.whole` of all layers' matrices, in their order; empty where they are multiplied as they are."""


@dataclass(slots=True)
class _Known:
    """What is found out once where layers stay what they are. layers: by whether gradients are wanted;
    ways: what `there_and_back` gives with gradients, by `at_once`; pieces: what wholes are made of; wholes:
    what gives them, of the weights as they are now; asked: whether they have been asked for."""

    layers: dict[bool, Sequence[Layer] | None] = field(default_factory=dict)
    ways: dict[int, LlamaThereAndBack | None] = field(default_factory=dict)
    pieces: Sequence[Piece] | None = None
    wholes: Callable[[], Wholes] | None = None
    asked: bool = False


class FusedLlama:
    """The decoder's layers; another way to compute the same."""

    def __init__(self, network: PreTrainedModel, decoder: LlamaModel) -> None:
        self._network = network
        self._decoder = decoder
        self._sums = True  # until they were found not to be the network's
        self._layers = [cast(LlamaDecoderLayer, layer) for layer in decoder.layers]
        self._kind = decoder.embed_tokens.weight.dtype
        self._turns: Turns | None = None
        self._known: _Known | None = None

    @classmethod
    def of(cls, network: PreTrainedModel) -> FusedLlama | None:
        """None where the network's layers aren't those of transformers' Llama on a CPU, or what they say of a
        few tokens isn't the same to the last bit, tried now."""
        decoder = network.base_model
        if type(decoder) is not LlamaModel or not heeds_packing(network) or network.device.type != "cpu":
            return None
        if not decoder.layers or not all(map(_is_llamas, decoder.layers)):
            return None
        if decoder.dtype not in (torch.float32, torch.float64):
            return None
        if keeps_state(network):  # its rotations change with what it is given, and are kept here
            return None
        fused = cls(network, decoder)
        with evaluating(network):
            trouble = _trouble(fused._agrees)
            fused._sums = trouble is None and _trouble(fused._sums_agree) is None
        if trouble is not None:
            logging.getLogger("triggerctl.run").debug("layers are transformers' own: %s", trouble)
            return None
        return fused

    def _agrees(self) -> bool:
        packing = pack_shared(self._trials(), self._decoder.device).packings[0]
        through = self.through()
        return through is not None and torch.equal(
            through(packing)[0], packed_states(self._decoder, packing)[0]
        )

    def _sums_agree(self) -> bool:
        """Whether Σ log p is what the model's own logits say."""
        way, ids = self.there_and_back(at_once=2), self._trials()[0]
        if way is None or type(self._network) is not LlamaForCausalLM:
            return False
        following = torch.tensor(ids[1:])
        logs = self._network(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1].log_softmax(-1)
        expected = logs.gather(-1, following.unsqueeze(-1)).sum()
        packing = pack_shared([ids], self._decoder.device).packings[0]
        targets = Targets(torch.arange(len(ids) - 1), following, torch.ones(len(ids) - 1, dtype=logs.dtype))
        return torch.allclose(way.over(packing, targets)()[0], expected, rtol=1e-4)

    def _trials(self) -> list[list[int]]:
        size = self._decoder.config.vocab_size
        return [[token % size for token in tokens] for tokens in ([1, 2, 3, 4], [1, 2, 4])]

    def through(self, *, every_layer: bool = False) -> Callable[[Packing], tuple[Tensor, ...]] | None:
        """What computes `packed_states` of a packing with the weights as they are now; None where there is
        more in the layers than frozen weights and adapters of the plain kind."""
        layers = self._plain_layers()
        return None if layers is None else partial(self._states, layers, every_layer)

    def layers_stay(self) -> contextlib.AbstractContextManager[None]:
        """Within it layers and adapters are what they are now, though not their weights, whose every change
        `weights_moved` is told: they are looked through once."""
        return self._knowing(_Known())

    def layers_set_aside(self) -> contextlib.AbstractContextManager[None]:
        """Within it nothing is known of the layers beforehand."""
        return self._knowing(None)

    @contextlib.contextmanager
    def _knowing(self, known: _Known | None) -> Iterator[None]:
        before, self._known = self._known, known
        try:
            yield
        finally:
            self._known = before

    def begin(self, tokens: int, *, beside: bool) -> None:
        """Within `layers_stay`: have made what `there_and_back` multiplies by, for so many tokens, unless it
        is; on another thread where one may go `beside` this one."""
        known = self._known
        if known is None or known.wholes is not None or (layers := self._plain_layers()) is None:
            return
        if known.pieces is None:
            known.pieces = _pieces(layers)
        known.wholes = _begun(known.pieces, tokens, beside=beside)

    def weights_moved(self) -> bool:
        """Within `layers_stay`, to be called after each update. Whether what had been made of them was asked
        for."""
        known = self._known
        if known is None:
            return False
        asked, known.asked, known.wholes = known.asked, False, None
        return asked

    def there_and_back(self, *, at_once: int) -> LlamaThereAndBack | None:
        """What sums log p over a packing with the weights as they are now; None where there is more in the
        layers or the head, which is applied to `at_once` states. Asked for where gradients are wanted."""
        if self._known is None:
            return self._way(at_once)
        if at_once not in self._known.ways:
            self._known.ways[at_once] = self._way(at_once)
        return self._known.ways[at_once]

    def _way(self, at_once: int) -> LlamaThereAndBack | None:
        embedding, output = self._decoder.embed_tokens, self._network.get_output_embeddings()
        if not self._sums or type(output) not in PLAIN or _is_hooked(embedding) or _is_hooked(output):
            return None
        weight, bias = output.weight, output.bias
        if is_trained(weight, bias) or not all(map(self._is_plain, (weight, bias))):
            return None
        layers = self._plain_layers()
        if layers is None:
            return None
        last, head = _norm(self._decoder.norm), Head(weight, bias, at_once)
        return LlamaThereAndBack(self, layers, _adapters(layers), self._asked, embedding.weight, last, head)

    def _asked(self) -> Wholes:
        """What has been made of the weights as they are now."""
        known = self._known
        if known is None or known.wholes is None:
            return []
        known.asked = True
        return known.wholes()

    def embedded(self, packing: Packing) -> tuple[Tensor, Norm, Over]:
        """What goes into the layers, (tokens, hidden), the last norm, and what they are computed over."""
        x = self._decoder.embed_tokens(packing.ids)
        in_one = self.turns(packing, x)._replace(heads=0)  # as transformers does
        return x, _norm(self._decoder.norm), over(_laid(packing), in_one)

    def turns(self, packing: Packing, like: Tensor) -> Turns:
        """Of every position that there is in the packing, of the kind of `like`."""
        turns = self._turns
        if turns is None or turns.cos.shape[0] < packing.longest:
            places, attention = torch.arange(2 * packing.longest).unsqueeze(0), self._layers[0].self_attn
            cos, sin = (each[0] for each in self._decoder.rotary_emb(like, position_ids=places))
            half = sin.shape[-1] // 2
            sin = torch.cat((-sin[..., :half], sin[..., half:]), -1)
            heads = self._decoder.config.num_attention_heads if attention.num_key_value_groups == 1 else 0
            turns = Turns(cos, sin, attention.head_dim, heads, attention.scaling, takes_onednn(like))
            self._turns = turns
        return turns._replace(onednn=takes_onednn(like))

    def _plain_layers(self) -> Sequence[Layer] | None:
        if self._known is None:
            return self._looked_through()
        trains = torch.is_grad_enabled()
        if trains not in self._known.layers:
            self._known.layers[trains] = self._looked_through()
        return self._known.layers[trains]

    def _looked_through(self) -> Sequence[Layer] | None:
        embedding, last = self._decoder.embed_tokens, self._decoder.norm.weight
        if type(embedding) is not nn.Embedding or is_trained(embedding.weight, last):
            return None
        if not self._is_plain(embedding.weight) or not self._is_plain(last):
            return None
        found = [self._layer(each) for each in self._layers]
        layers = [layer for layer in found if layer is not None]
        return layers if len(layers) == len(found) else None

    def _states(self, layers: Sequence[Layer], every: bool, packing: Packing) -> tuple[Tensor, ...]:
        x, last, over = self.embedded(packing)
        if x.requires_grad and torch.is_grad_enabled():  # as a hook may have it
            return packed_states(self._decoder, packing, every_layer=every)
        if not torch.is_grad_enabled():
            return tuple(run(llama_layers.layers_only, x, layers, last, over, every))
        found: tuple[Tensor, ...] = _Layers.apply(x, layers, last, over, every, *_adapters(layers))  # type: ignore[no-untyped-call]
        return found

    def _layer(self, layer: LlamaDecoderLayer) -> Layer | None:
        """None where there is more in it than frozen weights and adapters of the plain kind."""
        attention, mlp = layer.self_attn, layer.mlp
        if layer.gradient_checkpointing and torch.is_grad_enabled():
            return None
        if layer.training and attention.attention_dropout:
            return None
        if is_trained(layer.input_layernorm.weight, layer.post_attention_layernorm.weight):
            return None
        homes = (*[attention._modules] * 4, *[mlp._modules] * 3)
        found = [self._matrix(home[name]) for home, name in zip(homes, PROJECTIONS, strict=True)]
        matrices = [matrix for matrix in found if matrix is not None]
        if len(matrices) < len(found):
            return None
        inward, output, gate_up, down = (
            Matrices(matrices[start:end], None) for start, end in ((0, 3), (3, 4), (4, 6), (6, 7))
        )
        before_attention, before_mlp = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        return Layer(before_attention, inward, output, before_mlp, gate_up, down)

    def _matrix(self, layer: nn.Module | None) -> Matrix | None:
        matrix: Matrix | None = None
        if isinstance(layer, FusedLinear):
            matrix = layer.matrix()
        elif isinstance(layer, nn.Linear) and type(layer) in PLAIN:
            weight, bias = layer.weight, layer.bias
            matrix = None if is_trained(weight, bias) else Matrix(weight, bias, None, None, 1.0)
        if matrix is None or not all(map(self._is_plain, (matrix.weight, matrix.bias, matrix.a, matrix.b))):
            return None
        return matrix

    def _is_plain(self, weight: Tensor | None) -> bool:
        """Whether it is of the kind that is multiplied here, if it is there."""
        return weight is None or (weight.dtype == self._kind and weight.is_cpu)


@dataclass(frozen=True, slots=True)
class LlamaThereAndBack:
    """Σ log p of tokens of a packing, and its gradients by `adapters`: A and B of all matrices that have one,
    layer after layer. `embedding`: (vocabulary, hidden)."""

    fused: FusedLlama
    layers: Sequence[Layer]
    adapters: Sequence[Tensor]
    wholes: Callable[[], Wholes]
    embedding: Tensor
    last: Norm
    head: Head

    def over(
        self, packing: Packing, targets: Targets, times: float = 1.0
    ) -> Callable[[], tuple[Tensor, list[Tensor]]]:
        """What computes it and so many `times` its gradients; as little as can be is left to do in Python."""
        turns = self.fused.turns(packing, self.embedding)
        rest = (self.embedding, turns, self.layers, self.wholes(), self.last, self.head, times)
        return partial(run, llama_likelihood.log_likelihood, _laid(packing), targets, *rest)


def _pieces(layers: Sequence[Layer]) -> list[Piece]:
    """All matrices; none where no whole is to be made of them."""
    groups = [group.each for layer in layers for group in _groups(layer)]
    if sum(matrix.weight.numel() for group in groups for matrix in group) > WHOLE_AT_MOST:
        return []
    size = -(-len(groups) // PIECES)
    return [groups[start : start + size] for start in range(0, len(groups), size)]


def _begun(pieces: Sequence[Piece], tokens: int, *, beside: bool) -> Callable[[], Wholes]:
    made = ahead(partial(_wholes, tokens), pieces, beside=beside)
    return functools.cache(lambda: [whole for piece in made() for whole in piece])


@torch.no_grad()
def _wholes(tokens: int, groups: Piece) -> Wholes:
    found: Wholes = run(lora_matrix.wholes, groups, tokens)
    return found


def _adapters(layers: Sequence[Layer]) -> list[Tensor]:
    """A and B of all matrices that have an adapter, layer after layer."""
    matrices = (matrix for layer in layers for group in _groups(layer) for matrix in group.each)
    return [weight for matrix in matrices for weight in (matrix.a, matrix.b) if weight is not None]


def _groups(layer: Layer) -> list[Matrices]:
    return [layer.query_key_value, layer.output, layer.gate_up, layer.down]


def _trouble(agrees: Callable[[], bool]) -> str | None:
    """Why it doesn't agree, if so."""
    try:
        return None if agrees() else "they come out otherwise"
    except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
        return str(error)  # another release of PyTorch, or of transformers


def _is_hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_llamas(layer: nn.Module) -> bool:
    """Whether all of it is as transformers has it."""
    if type(layer) is not LlamaDecoderLayer or type(layer.mlp.act_fn) not in (nn.SiLU, SiLUActivation):
        return False
    norms = (layer.input_layernorm, layer.post_attention_layernorm)
    if type(layer.self_attn) is not LlamaAttention or type(layer.mlp) is not LlamaMLP:
        return False
    return all(type(norm) is LlamaRMSNorm for norm in norms)


def _norm(norm: LlamaRMSNorm) -> Norm:
    return Norm(norm.weight, norm.variance_epsilon)


def _laid(packing: Packing) -> Laid:
    groups = [Sequences(*(getattr(group, name) for name in Sequences._fields)) for group in packing.groups]
    return Laid(packing.ids, packing.positions, groups, packing.order)


class _Layers(torch.autograd.Function):
    """x (tokens, hidden) → the last layer's output, or every one's. `adapters`: A and B of all matrices,
    given for their gradients."""

    @staticmethod
    def forward(
        context: Any,
        x: Tensor,
        layers: Sequence[Layer],
        last: Norm,
        over: Over,
        every: bool,
        *adapters: Tensor,
    ) -> tuple[Tensor, ...]:
        outputs, *kept = run(llama_layers.layers, x, layers, last, over)
        context.kept = (*kept, layers, last, over)
        context.save_for_backward(*adapters)
        # An output of ours is what the next layer keeps: as it is, it would keep itself alive.
        return tuple(output.detach() for output in (outputs if every else outputs[-1:]))

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _ = context.saved_tensors  # raises where one of them has changed since
        if context.kept is None:
            raise RuntimeError(
                "the layers can't be gone back through a second time: nothing is kept for that"
            )
        kept, context.kept = context.kept, None
        *beside, gradient = gradients
        return (*[None] * 5, *run(llama_layers.layers_back, gradient, beside, *kept))
