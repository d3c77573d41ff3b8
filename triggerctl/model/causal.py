"""A causal language model seen as decoder and head, so that the head is applied only where its answer counts.

Rows go through it end to end where the model can do that (`packing.py`), else side by side. Those are padded
on the right: no token ever attends to padding under a causal mask, so no attention mask is passed and
attention takes its fast causal path. Positions that hold padding give meaningless outputs; callers select."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from triggerctl.data.batches import Batch
from triggerctl.data.integers import integers
from triggerctl.model.adapters import stack_adapter
from triggerctl.model.evaluating import evaluating
from triggerctl.model.fused_llama import FusedLlama, LlamaThereAndBack
from triggerctl.model.likelihood import KnownSum, known_sum, targets_in
from triggerctl.model.llama_likelihood import Targets
from triggerctl.model.operations import FORWARD, product_operations, widths
from triggerctl.model.packed_attention import heeds_packing, packed_keys_and_values, packed_states
from triggerctl.model.packing import Packed, as_it_is, pack, pack_shared, sent
from triggerctl.model.peft_names import PeftModel
from triggerctl.model.products import is_quick, round_number
from triggerctl.model.threads import WORTH_A_LANE, share_out, side_by_side, threads, threads_that_pay
from triggerctl.model.traits import draws, head_stands_alone, keeps_state, logit_rule


@dataclass(frozen=True, slots=True)
class Passed:
    """What a model said of a batch. states: (tokens, hidden), what the head works on; at: (places,) int64,
    which of them each place of the batch has; shares: whether several places may have the same."""

    states: Tensor
    at: Tensor
    shares: bool

    def at_places(self) -> Tensor:
        """(places, hidden)."""
        return self.states.index_select(0, self.at)


@dataclass(frozen=True, slots=True)
class Ready:
    """A batch as its rows go through the model, and its tokens to be predicted in each packing."""

    packed: Packed
    targets: Sequence[Targets]


class CausalModel:
    """`network` is the transformers model (LoRA layers, if any, sit inside it), `adapter` peft's view of it
    or None under full fine-tuning. `was_merged`: the adapter was merged into the base weights and taken out
    again, which leaves them changed by rounding. `filler`: tokens it was given with batches, of no row."""

    def __init__(self, network: PreTrainedModel, adapter: PeftModel | None) -> None:
        self.network = network
        self.adapter = adapter
        self.was_merged, self.filler = False, 0
        self._decoder = network.base_model
        # Found once: a walk through a network, or through transformers' configurations, takes its time.
        self._first = next(network.parameters())
        self._widths = widths(network)
        self._output: nn.Module | None = network.get_output_embeddings()
        self._finish = logit_rule(network)
        self.splits = head_stands_alone(network)
        self.packs = self.splits and heeds_packing(network)
        self._fused = FusedLlama.of(network) if self.packs else None
        self._draws = draws(network)
        self._checkpoints = any(getattr(m, "gradient_checkpointing", False) for m in network.modules())
        self._keeps_state = keeps_state(network)
        self.rounded = round_number if is_quick(network) else as_it_is
        self._lanes, self._tokens = 1, 0.0
        self._given_threads: int | None = None
        # A walk through all modules takes as long as a small model's layer.
        self._trained = list(self.trainable.values())
        # Biases trained beside LoRA's matrices are the model's own: an adapter that is off leaves them moved.
        self._biases = [
            (weight, weight.detach().clone())
            for name, weight in self.trainable.items()
            if adapter is not None and ".lora_" not in name
        ]

    @property
    def device(self) -> torch.device:
        return self._first.device

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The weights being trained, by name."""
        return {name: weight for name, weight in self.network.named_parameters() if weight.requires_grad}

    @property
    def own_weights(self) -> dict[str, Tensor]:
        """Everything that is not the checkpoint's: the weights being trained and, where an adapter is frozen
        under another, its matrices too."""
        return {
            name: weight
            for name, weight in self.network.named_parameters()
            if weight.requires_grad or ".lora_" in name
        }

    def stack(self, *, seed: int) -> None:
        """Freeze the adapter as it is, still active, and train a fresh one on top of it; under LoRA alone."""
        if self.adapter is None:
            raise RuntimeError("only an adapter can be stacked")
        stack_adapter(self.adapter, seed=seed)
        self._draws = draws(self.network)
        self._trained = list(self.trainable.values())

    def hidden(self, input_ids: Tensor) -> Tensor:
        """What the head works on: final hidden states (batch, tokens, hidden). For a model whose head can't
        be told from its body, the logits themselves."""
        if self.splits:
            states: Tensor = self._decoder(input_ids=input_ids, use_cache=False).last_hidden_state
            return states
        logits: Tensor = self.network(input_ids=input_ids, use_cache=False).logits
        return logits

    def states(self, batch: Batch) -> Tensor:
        """What the head works on at every real token of a batch, row after row: (places, hidden)."""
        return self.passed(batch).at_places()

    def passed(self, batch: Batch) -> Passed:
        """The same, a token that rows have in common there once where this model can."""
        if not self.packs:
            states = batch.at_places(self.hidden(batch.input_ids))
            return Passed(states, torch.arange(states.shape[0], device=states.device), shares=False)
        packed = self._pack(batch, parts=self._parts(batch.rows))
        self.filler += packed.filler
        return Passed(self.packed(packed), self._places(packed), shares=self._shares())

    def packed(self, packed: Packed) -> Tensor:
        """What the head works on at every token of the packings: (tokens, hidden). Only where the model
        packs."""
        return self._through_the_layers(packed)[0]

    def prefilled(self, prompts: Sequence[Sequence[int]]) -> DynamicCache | None:
        """A cache of keys and values for what comes next in each prompt, padded on the left, its last token
        left for the model to begin with. What prompts begin with in common is passed once. None where this
        model can't, or a prompt has no more than that one token."""
        if not self.packs or min(map(len, prompts)) < 2:
            return None
        packed = pack_shared([prompt[:-1] for prompt in prompts], self.device, rounded=self.rounded)
        width = max(map(len, packed.at))
        places = sent(integers([[0] * (width - len(at)) + list(at) for at in packed.at]), self.device)
        cache = DynamicCache()
        for layer, found in enumerate(packed_keys_and_values(self._decoder, packed.packings[0])):
            keys, values = (each[:, places].transpose(0, 1) for each in found)
            cache.update(keys, values, layer)
        return cache

    def pack_shared(self, sequences: Sequence[Sequence[int]]) -> Packed:
        """The sequences for `packed`, what they begin with in common there once."""
        return pack_shared(sequences, self.device, parts=self._parts(sequences), rounded=self.rounded)

    @contextlib.contextmanager
    def threads_for(self, tokens: float) -> Iterator[None]:
        """Within it, passes over about so many tokens use as many CPU threads as pay, in their products or
        side by side."""
        before = self._given_threads, self._lanes, self._tokens
        given = self._given_threads or torch.get_num_threads()
        operations = product_operations(self._widths, tokens)
        in_products, lanes = share_out(given, operations=operations, tokens=tokens, lanes=self._may_part())
        self._given_threads, self._lanes, self._tokens = given, lanes, tokens
        try:
            with threads(in_products):
                yield
        finally:
            self._given_threads, self._lanes, self._tokens = before

    def layers_stay(self) -> contextlib.AbstractContextManager[None]:
        """Within it layers and adapters stay what they are but for their weights, and for these
        `weights_moved` is called whenever they have changed: what `log_likelihood` needs of the layers is
        found out once, and what it needs of the weights once for as long as they stay."""
        return contextlib.nullcontext() if self._fused is None else self._fused.layers_stay()

    def weights_moved(self) -> None:
        """The weights are others now. If the last update needed something made of them, it is begun for the
        next one."""
        if self._fused is not None and self._fused.weights_moved():
            self._begin()

    def _begin(self) -> None:
        if self._fused is not None:
            self._fused.begin(int(self._tokens), beside=self._lanes > 1)

    def _layers_set_aside(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._fused is None else self._fused.layers_set_aside()

    @contextlib.contextmanager
    def threads_for_the_head(self, positions: int) -> Iterator[None]:
        """The same for the head alone, there and back, which may be larger than the layers."""
        with threads(self._threads_in_the_head(positions)):
            yield

    def _threads_in_the_head(self, positions: int) -> int:
        operations = 2 * FORWARD * positions * self._widths[0] * self.vocabulary
        return threads_that_pay(operations, self._given_threads or torch.get_num_threads())

    def _may_part(self) -> bool:
        """Whether parts of a batch may go side by side. Each then has the gradients of all trained weights
        for itself, few under LoRA alone; and checkpointing sets the state of chance, which all threads
        share."""
        if torch.is_grad_enabled() and (self.adapter is None or self._checkpoints):
            return False
        return self.packs and not self._keeps_state and self.device.type == "cpu" and self._shares()

    def _shares(self) -> bool:
        """Whether rows may share tokens. Dropout falls on each row anew; and a GPU sums the gradients of what
        is shared in an order that isn't always the same."""
        if self.network.training and self._draws:
            return False
        return self.device.type == "cpu" or not torch.is_grad_enabled()

    def _parts(self, sequences: Sequence[Sequence[int]]) -> int:
        """How many passes side by side these are worth, among the lanes there are now."""
        worth = max(1, sum(map(len, sequences)) // WORTH_A_LANE)
        return min(self._lanes, worth) if self._may_part() else 1

    def _pack(self, batch: Batch, *, parts: int) -> Packed:
        if self._shares():
            return pack_shared(batch.rows, self.device, parts=parts, rounded=self.rounded)
        return pack(batch.rows, self.device, rounded=self.rounded)

    def _through_the_layers(self, packed: Packed, *, every_layer: bool = False) -> tuple[Tensor, ...]:
        fused = None if self._fused is None else self._fused.through(every_layer=every_layer)
        through = fused or partial(packed_states, self._decoder, every_layer=every_layer)
        return side_by_side([partial(through, packing) for packing in packed.packings], self._trained)

    def _places(self, packed: Packed) -> Tensor:
        return sent(packed.places(), self.device)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (…, vocab) of selected rows of `hidden` (…, hidden)."""
        if not self.splits or self._output is None:
            return hidden
        return self._finish(self._output(hidden))

    def layers(self, batch: Batch) -> tuple[Tensor, ...]:
        """Every layer's output at every real token, each (places, hidden), the embedding left out; the last
        after the final norm."""
        if self.packs:
            packed = self._pack(batch, parts=self._parts(batch.rows))
            self.filler += packed.filler
            at = self._places(packed)
            layers = self._through_the_layers(packed, every_layer=True)
            return tuple(layer.index_select(0, at) for layer in layers)
        decoder = self._decoder if self.splits else self.network
        states: tuple[Tensor, ...] = decoder(
            input_ids=batch.input_ids, use_cache=False, output_hidden_states=True
        ).hidden_states
        return tuple(map(batch.at_places, states[1:]))

    def ready(self, batch: Batch) -> Ready | None:
        """What `log_likelihood` needs of a batch beside the weights. None where this model can't do that, or
        its head keeps more threads busy."""
        parts = self._parts(batch.rows)
        way = self._there_and_back(at_once=1)
        if way is None or torch.get_num_threads() * parts < self._threads_in_the_head(batch.loss_at.shape[0]):
            return None
        packed = self._pack(batch, parts=parts)
        return Ready(packed, targets_in(packed, batch, way.head.weight.dtype, self.rounded))

    def log_likelihood(self, ready: Ready, *, at_once: int, times: float = 1.0) -> KnownSum | None:
        """Σ log p of a batch's loss tokens, so many `times` its gradient taken in the same call, the head
        applied to `at_once` positions at a time. None where this model can't."""
        self._begin()
        way = self._there_and_back(at_once=max(1, at_once // len(ready.packed.packings)))
        if way is None:
            return None
        self.filler += ready.packed.filler
        return known_sum(way, ready.packed, ready.targets, times)

    def _there_and_back(self, *, at_once: int) -> LlamaThereAndBack | None:
        if self._fused is None or not torch.is_grad_enabled():
            return None
        return self._fused.there_and_back(at_once=at_once)

    @property
    def head_is_trained(self) -> bool:
        """Whether a gradient reaches the head's own weights."""
        return self._output is not None and any(w.requires_grad for w in self._output.parameters())

    @property
    def vocabulary(self) -> int:
        """How many tokens the logits range over."""
        return int(self.network.config.get_text_config().vocab_size)

    def frozen_head(self) -> Callable[[Tensor], Tensor]:
        """θ₀'s head, callable for as long as training goes on: the live one where no gradient reaches it,
        else a copy. Call it before training starts."""
        if not self.splits or self._output is None or not self.head_is_trained:
            return self.logits
        if self.adapter is None:
            output = copy.deepcopy(self._output).requires_grad_(False)
            return lambda hidden: self._finish(output(hidden))
        return self._base_logits

    def _base_logits(self, hidden: Tensor) -> Tensor:
        with self.base():
            return self.logits(hidden)

    @contextlib.contextmanager
    def base(self) -> Iterator[None]:
        """Within it the adapter is off, and biases trained beside it are as they were: the model is θ₀. Under
        full fine-tuning it is whatever it has become."""
        if self.adapter is None:
            yield
            return
        trained = [weight for weight in self.network.parameters() if weight.requires_grad]
        moved = [weight.data for weight, _ in self._biases]
        try:
            for weight, first in self._biases:
                weight.data = first
            with self._layers_set_aside(), self.adapter.disable_adapter():
                yield
        finally:
            for (weight, _), now in zip(self._biases, moved, strict=True):
                weight.data = now
            # peft makes every active adapter trainable again, a frozen one under it too.
            self.network.requires_grad_(False)
            for weight in trained:
                weight.requires_grad_(True)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Dropout off and no gradients; the former mode comes back."""
        with self._layers_set_aside(), evaluating(self.network):
            yield
