"""A causal language model seen as decoder and head, so that the head is applied only where its answer counts.

Batches are padded on the right: no token ever attends to padding under a causal mask, so no attention mask is
passed and attention takes its fast causal path. Positions that hold padding give meaningless outputs; callers
select."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel


class CausalModel:
    """`network` is the transformers model (LoRA layers, if any, sit inside it), `adapter` peft's view of it
    or None under full fine-tuning."""

    def __init__(self, network: PreTrainedModel, adapter: PeftModel | None) -> None:
        self.network = network
        self.adapter = adapter
        self._decoder = network.base_model
        self._output: nn.Module | None = network.get_output_embeddings()
        self._finish = _logit_rule(network)
        self.splits = self._head_can_stand_alone()

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The weights being trained, by name."""
        return {name: weight for name, weight in self.network.named_parameters() if weight.requires_grad}

    def hidden(self, input_ids: Tensor) -> Tensor:
        """What the head works on: final hidden states (batch, tokens, hidden). For a model whose head can't
        be told from its body, the logits themselves."""
        if self.splits:
            states: Tensor = self._decoder(input_ids=input_ids, use_cache=False).last_hidden_state
            return states
        logits: Tensor = self.network(input_ids=input_ids, use_cache=False).logits
        return logits

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (…, vocab) of selected rows of `hidden` (…, hidden)."""
        if not self.splits or self._output is None:
            return hidden
        return self._finish(self._output(hidden))

    def frozen_head(self) -> Callable[[Tensor], Tensor]:
        """θ₀'s head, callable for as long as training goes on: the live one where no gradient reaches it,
        else a copy. Call it before training starts."""
        if not self.splits or self._output is None:
            return self.logits
        trained = any(weight.requires_grad for weight in self._output.parameters())
        if self.adapter is None and trained:
            output = copy.deepcopy(self._output).requires_grad_(False)
            return lambda hidden: self._finish(output(hidden))
        return self._base_logits

    def _base_logits(self, hidden: Tensor) -> Tensor:
        with self.base():
            return self.logits(hidden)

    @contextlib.contextmanager
    def base(self) -> Iterator[None]:
        """Within it the adapter is off: the model is θ₀. Under full fine-tuning it is whatever it has
        become."""
        if self.adapter is None:
            yield
            return
        with self.adapter.disable_adapter():
            yield

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Dropout off and no gradients; the former mode comes back."""
        was_training = self.network.training
        self.network.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.network.train(was_training)

    @torch.no_grad()
    def _head_can_stand_alone(self) -> bool:
        """Whether head(decoder(x)) is the model's own logits; some models scale or cap them in ways of their
        own."""
        if self._output is None or self._decoder is self.network:
            return False
        vocabulary = int(self.network.config.get_text_config().vocab_size)
        ids = torch.arange(1, 9, device=self.device).remainder(vocabulary).unsqueeze(0)
        was_training = self.network.training
        self.network.eval()
        try:
            whole = self.network(input_ids=ids, use_cache=False).logits
            states = self._decoder(input_ids=ids, use_cache=False).last_hidden_state
            parts = self._finish(self._output(states))
        except (AttributeError, TypeError):
            return False
        finally:
            self.network.train(was_training)
        return parts.shape == whole.shape and bool(torch.allclose(parts, whole, rtol=1e-5, atol=1e-5))


def _logit_rule(network: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """What the model does to its head's output. Gemma 2 caps logits by tanh."""
    cap = network.config.to_dict().get("final_logit_softcapping")
    if cap is None:
        return lambda logits: logits
    return lambda logits: torch.tanh(logits / cap) * cap
