"""What θ₀ says about rows that never change: computed once, before training, or with the adapter off.

Log-probabilities over a vocabulary of 256,000 would not fit in memory; final hidden states are a hundred
times smaller and lose nothing, since the head is applied to them again. Of an answer only the log-probability
of its own tokens counts: a number each. Every layer's states are many: with an adapter they are computed anew
when asked for, adapter off; without one, when θ₀ is gone once training starts, they are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from triggerctl.data.batches import Batch, collate, token_budget_batches
from triggerctl.data.encoding import Encoded
from triggerctl.errors import InputError
from triggerctl.model.causal import CausalModel
from triggerctl.model.positions import at_once, per_position
from triggerctl.strategies.base import Base, log_probabilities
from triggerctl.training.shared import Shared, digest, nothing_shared

KIND = "base-passes"
TOKENS_PER_BATCH = 4096

Kept = list[tuple[Tensor, ...]]
"""What is kept of each row, in the CPU's memory: one tensor, or one of each layer."""


class BaseReference:
    """θ₀'s outputs on one stream's rows, those that `needs` names: taken from `shared` where another run has
    left them. Make it before training starts: under full fine-tuning θ₀ is gone after."""

    def __init__(
        self,
        model: CausalModel,
        rows: Sequence[Encoded],
        *,
        needs: frozenset[Base],
        pad_id: int,
        progress: Callable[[int, int], None],
        shared: Shared | None = None,
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
        self._shared = shared or nothing_shared()
        self._progress = progress
        self._finals: Kept = []
        self._answers: Kept = []
        self._layers: Kept = []
        if "logits" in needs and model.splits:
            self._finals = self._obtain("final states", self._final_states_of)
        if "answers" in needs:
            self._answers = self._obtain("answers", self._answers_of)
        if "hidden states" in needs and model.adapter is None:
            # Every layer's states are many: a GPU computes them sooner than a disk reads them.
            if model.device.type == "cpu":
                self._layers = self._obtain("layers", self._layers_of)
            else:
                self._layers = self._pass_over_rows(self._layers_of)

    def _obtain(self, what: str, of_batch: Callable[[list[int]], Kept]) -> Kept:
        about = {
            "what": what,
            "rows": digest([row.input_ids, row.prompt_length] for row in self._rows),
            "pad_id": self._pad_id,
            "tokens_per_batch": TOKENS_PER_BATCH,
            "positions_at_once": at_once(self._model),
        }
        return _rows_of(self._shared.tensors(KIND, about, lambda: _named(self._pass_over_rows(of_batch))))

    def _pass_over_rows(self, of_batch: Callable[[list[int]], Kept]) -> Kept:
        found: dict[int, tuple[Tensor, ...]] = {}
        with self._model.evaluating(), self._model.base():
            for indices in token_budget_batches([len(row.input_ids) for row in self._rows], TOKENS_PER_BATCH):
                found.update(zip(indices, of_batch(indices), strict=True))
                self._progress(len(found), len(self._rows))
        return [found[index] for index in range(len(self._rows))]

    def _final_states_of(self, indices: list[int]) -> Kept:
        batch = self._batch(indices)
        return [(own.to("cpu", copy=True),) for own in self._model.states(batch).split(batch.lengths)]

    def _answers_of(self, indices: list[int]) -> Kept:
        batch = self._batch(indices)
        states = self._model.states(batch).index_select(0, batch.answer_at - 1)
        targets = batch.at_places(batch.input_ids).index_select(0, batch.answer_at)
        values = per_position(self._model, states, log_probabilities, targets)
        lengths = batch.answer_mask.sum(dim=1).tolist()
        return [(own.clone(),) for own in values.cpu().split(lengths)]

    def _layers_of(self, indices: list[int]) -> Kept:
        batch = self._batch(indices)
        layers = [layer.split(batch.lengths) for layer in self._model.layers(batch)]
        return [tuple(own.to("cpu", copy=True) for own in row) for row in zip(*layers, strict=True)]

    def _batch(self, indices: Sequence[int]) -> Batch:
        return collate([self._rows[i] for i in indices], self._pad_id).to(self._model.device)

    @torch.no_grad()
    def final_states(self, rows: Sequence[int]) -> Tensor:
        """What `head` turns to θ₀'s logits at every attended position of the rows, in their order: (attended
        tokens, hidden)."""
        if not self._model.splits:
            return self._logits_now(rows)
        states = torch.cat([self._finals[row][0] for row in rows])
        return states.to(self._model.device, non_blocking=True)

    @torch.no_grad()
    def answer_log_probabilities(self, rows: Sequence[int]) -> Tensor:
        """log p_θ₀ of each token of the rows' answers, in their order: (answer tokens,)."""
        return torch.cat([self._answers[row][0] for row in rows]).to(self._model.device, non_blocking=True)

    @torch.no_grad()
    def hidden_states(self, rows: Sequence[int]) -> tuple[Tensor, ...]:
        """Every layer's output at the attended positions of the rows: each (attended tokens, hidden)."""
        if self._layers:
            by_layer = zip(*(self._layers[row] for row in rows), strict=True)
            return tuple(torch.cat(layer).to(self._model.device) for layer in by_layer)
        with self._model.evaluating(), self._model.base():
            return self._model.layers(self._batch(rows))

    def _logits_now(self, rows: Sequence[int]) -> Tensor:
        """Where hidden states can't be turned to logits: one more pass, adapter off."""
        with self._model.evaluating(), self._model.base():
            return self._model.states(self._batch(rows))


def _named(rows: Kept) -> dict[str, Tensor]:
    return {f"{row}.{place}": part for row, parts in enumerate(rows) for place, part in enumerate(parts)}


def _rows_of(named: Mapping[str, Tensor]) -> Kept:
    rows: dict[int, dict[int, Tensor]] = {}
    for name, tensor in named.items():
        row, place = map(int, name.split("."))
        rows.setdefault(row, {})[place] = tensor
    return [tuple(parts[place] for place in sorted(parts)) for _, parts in sorted(rows.items())]
