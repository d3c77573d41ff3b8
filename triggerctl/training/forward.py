"""One micro-batch through the model, as the terms of a loss see it: `strategies.base.Forward`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from triggerctl.data.batches import Batch
from triggerctl.model.causal import CausalModel, Passed
from triggerctl.model.likelihood import KnownSum, distinct
from triggerctl.model.positions import at_once, per_position
from triggerctl.strategies.base import OfBoth, OfTargets, log_probabilities
from triggerctl.training.reference import BaseReference


class ModelForward:
    """The forward pass of `rows`, which `batch` holds on the model's device. `base` answers for θ₀;
    `for_one_term`: whether no more than one reads it."""

    def __init__(
        self,
        model: CausalModel,
        batch: Batch,
        rows: Sequence[int],
        base: BaseReference | None,
        *,
        for_one_term: bool = False,
    ) -> None:
        self._model = model
        self._batch = batch
        self._rows = rows
        self._reference = base
        self._for_one_term = for_one_term
        self._found: Passed | None = None
        self._known: KnownSum | None = None

    @property
    def batch(self) -> Batch:
        return self._batch

    def at_targets(self, value: OfTargets) -> Tensor:
        return self._predicting(self._batch.loss_at, value)

    def log_likelihood(self) -> Tensor:
        if self._known is None and self._for_one_term:
            ready = self._model.ready(self._batch)
            if ready is not None:
                self._known = self._model.log_likelihood(ready, at_once=at_once(self._model))
        return self.at_targets(log_probabilities).sum() if self._known is None else self._known.value

    def give_back(self) -> None:
        """To be called after autograd's way back: there are gradients that it doesn't know of."""
        if self._known is not None:
            self._known.give_back()

    def at_answers(self, value: OfTargets) -> Tensor:
        return self._predicting(self._batch.answer_at, value)

    def at_attended(self, value: OfBoth) -> Tensor:
        head = self._base.head

        def of_both(logits: Tensor, base_states: Tensor) -> Tensor:
            with torch.no_grad():
                base_logits = head(base_states)
            return value(logits, base_logits)

        return per_position(
            self._model, self._passed().at_places(), of_both, self._base.final_states(self._rows)
        )

    def base_answer_log_probabilities(self) -> Tensor:
        return self._base.answer_log_probabilities(self._rows)

    def hidden_states(self) -> tuple[Tensor, ...]:
        return self._model.layers(self._batch)

    def base_hidden_states(self) -> tuple[Tensor, ...]:
        return self._base.hidden_states(self._rows)

    @property
    def _base(self) -> BaseReference:
        if self._reference is None:
            raise RuntimeError("a term that reads the base must say so with needs_base")
        return self._reference

    def _passed(self) -> Passed:
        if self._found is None:
            self._found = self._model.passed(self._batch)
        return self._found

    def _predicting(self, targets: Tensor, value: OfTargets) -> Tensor:
        """`value` at the tokens whose places `targets` are, from the states one place before; where several
        rows have such a token in common, the head sees it once."""
        passed = self._passed()
        if not passed.shares:
            before = passed.at.index_select(0, targets - 1)
            ids = self._batch.at_places(self._batch.input_ids).index_select(0, targets)
            return per_position(self._model, passed.states.index_select(0, before), value, ids)
        each = distinct(passed.at, self._batch, targets)
        states = passed.states.index_select(0, each.before)
        return per_position(self._model, states, value, each.ids).index_select(0, each.which)
