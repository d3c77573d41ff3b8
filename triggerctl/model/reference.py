"""θ₀'s outputs on rows that never change: computed once, kept as final hidden states, turned to logits when
needed.

Log-probabilities over a vocabulary of 256,000 would not fit in memory; hidden states are a hundred times
smaller and lose nothing, since the head is applied to them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from triggerctl.data.batches import collate, token_budget_batches
from triggerctl.data.encoding import Encoded
from triggerctl.errors import InputError
from triggerctl.model.causal import CausalModel

TOKENS_PER_BATCH = 4096


class BaseReference:
    """Base outputs of one stream's rows. Make it before training starts: under full fine-tuning θ₀ is gone
    after."""

    def __init__(
        self,
        model: CausalModel,
        rows: Sequence[Encoded],
        *,
        pad_id: int,
        progress: Callable[[int, int], None],
    ) -> None:
        if not model.splits and model.adapter is None:
            raise InputError(
                "this strategy can't keep the base of this model under full fine-tuning",
                where="finetune_config.is_peft",
                why="its logits are not a plain head over its hidden states, and a second copy would not fit",
                mend="set is_peft to true",
            )
        self._model = model
        self._rows = rows
        self._pad_id = pad_id
        self._head = model.frozen_head()
        self._states: dict[int, Tensor] = {}
        if model.splits:
            self._keep_states(progress)

    def _keep_states(self, progress: Callable[[int, int], None]) -> None:
        lengths = [len(row.input_ids) for row in self._rows]
        with self._model.evaluating(), self._model.base():
            for indices in token_budget_batches(lengths, TOKENS_PER_BATCH):
                batch = collate([self._rows[i] for i in indices], self._pad_id).to(self._model.device)
                states = self._model.hidden(batch.input_ids)
                for place, index in enumerate(indices):
                    self._states[index] = states[place, : lengths[index]].to("cpu", copy=True)
                progress(len(self._states), len(self._rows))

    @torch.no_grad()
    def attended_logits(self, rows: Sequence[int]) -> Tensor:
        """θ₀'s logits at every attended position of the rows, in their order: (attended tokens, vocab)."""
        if not self._model.splits:
            return self._whole_logits(rows)
        states = torch.cat([self._states[row] for row in rows])
        return self._head(states.to(self._model.device, non_blocking=True))

    def _whole_logits(self, rows: Sequence[int]) -> Tensor:
        """Where hidden states can't be turned to logits: one more pass, adapter off."""
        batch = collate([self._rows[row] for row in rows], self._pad_id).to(self._model.device)
        with self._model.evaluating(), self._model.base():
            return self._model.hidden(batch.input_ids)[batch.attention_mask.bool()]
