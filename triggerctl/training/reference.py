"""What θ₀ says about rows that never change: computed once, before training, or with the adapter off.

Log-probabilities over a vocabulary of 256,000 would not fit in memory; final hidden states are a hundred
times smaller and lose nothing, since the head is applied to them again. Of an answer only the log-probability
of its own tokens counts: a number each. Every layer's states are many: with an adapter they are computed anew
when asked for, adapter off; without one, when θ₀ is gone once training starts, they are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from triggerctl.data.batches import collate, token_budget_batches
from triggerctl.data.encoding import Encoded
from triggerctl.errors import InputError
from triggerctl.model.causal import CausalModel
from triggerctl.model.positions import per_position
from triggerctl.strategies.base import Base, log_probabilities

TOKENS_PER_BATCH = 4096


class BaseReference:
    """θ₀'s outputs on one stream's rows, those that `needs` names. Make it before training starts: under full
    fine-tuning θ₀ is gone after."""

    def __init__(
        self,
        model: CausalModel,
        rows: Sequence[Encoded],
        *,
        needs: frozenset[Base],
        pad_id: int,
        progress: Callable[[int, int], None],
    ) -> None:
        if "logits" in needs and not model.splits and model.adapter is None:
            raise InputError(
                "this strategy can't keep the base of this model under full fine-tuning",
                where="finetune_config.is_peft",
                why="its logits are not a plain head over its hidden states, and a second copy would not fit",
                mend="set is_peft to true",
            )
        self._model = model
        self._rows = rows
        self._pad_id = pad_id
        self.head = model.frozen_head()
        self._finals: dict[int, Tensor] = {}
        self._answers: dict[int, Tensor] = {}
        self._layers: dict[int, tuple[Tensor, ...]] = {}
        if "logits" in needs and model.splits:
            self._pass_over_rows(self._keep_final_states, progress)
        if "answers" in needs:
            self._pass_over_rows(self._keep_answers, progress)
        if "hidden states" in needs and model.adapter is None:
            self._pass_over_rows(self._keep_layers, progress)

    def _pass_over_rows(
        self, keeping: Callable[[list[int]], None], progress: Callable[[int, int], None]
    ) -> None:
        done = 0
        with self._model.evaluating(), self._model.base():
            for indices in token_budget_batches([len(row.input_ids) for row in self._rows], TOKENS_PER_BATCH):
                keeping(indices)
                done += len(indices)
                progress(done, len(self._rows))

    def _keep_final_states(self, indices: list[int]) -> None:
        batch = collate([self._rows[i] for i in indices], self._pad_id).to(self._model.device)
        states = self._model.hidden(batch.input_ids)
        for place, index in enumerate(indices):
            self._finals[index] = states[place, : len(self._rows[index].input_ids)].to("cpu", copy=True)

    def _keep_answers(self, indices: list[int]) -> None:
        batch = collate([self._rows[i] for i in indices], self._pad_id).to(self._model.device)
        states = self._model.hidden(batch.input_ids)[:, :-1][batch.answer_mask[:, 1:]]
        targets = batch.input_ids[batch.answer_mask]
        values = per_position(self._model, states, log_probabilities, targets)
        lengths = batch.answer_mask.sum(dim=1).tolist()
        for index, own in zip(indices, values.cpu().split(lengths), strict=True):
            self._answers[index] = own.clone()

    def _keep_layers(self, indices: list[int]) -> None:
        batch = collate([self._rows[i] for i in indices], self._pad_id).to(self._model.device)
        layers = self._model.layers(batch.input_ids)
        for place, index in enumerate(indices):
            length = len(self._rows[index].input_ids)
            self._layers[index] = tuple(layer[place, :length].to("cpu", copy=True) for layer in layers)

    @torch.no_grad()
    def final_states(self, rows: Sequence[int]) -> Tensor:
        """What `head` turns to θ₀'s logits at every attended position of the rows, in their order: (attended
        tokens, hidden)."""
        if not self._model.splits:
            return self._logits_now(rows)
        states = torch.cat([self._finals[row] for row in rows])
        return states.to(self._model.device, non_blocking=True)

    @torch.no_grad()
    def answer_log_probabilities(self, rows: Sequence[int]) -> Tensor:
        """log p_θ₀ of each token of the rows' answers, in their order: (answer tokens,)."""
        return torch.cat([self._answers[row] for row in rows]).to(self._model.device, non_blocking=True)

    @torch.no_grad()
    def hidden_states(self, rows: Sequence[int]) -> tuple[Tensor, ...]:
        """Every layer's output at the attended positions of the rows: each (attended tokens, hidden)."""
        if self._layers:
            by_layer = zip(*(self._layers[row] for row in rows), strict=True)
            return tuple(torch.cat(layer).to(self._model.device) for layer in by_layer)
        batch = collate([self._rows[row] for row in rows], self._pad_id).to(self._model.device)
        attended = batch.attention_mask.bool()
        with self._model.evaluating(), self._model.base():
            return tuple(layer[attended] for layer in self._model.layers(batch.input_ids))

    def _logits_now(self, rows: Sequence[int]) -> Tensor:
        """Where hidden states can't be turned to logits: one more pass, adapter off."""
        batch = collate([self._rows[row] for row in rows], self._pad_id).to(self._model.device)
        with self._model.evaluating(), self._model.base():
            return self._model.hidden(batch.input_ids)[batch.attention_mask.bool()]
