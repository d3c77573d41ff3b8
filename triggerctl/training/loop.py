"""The one training loop. It walks a strategy's phases, epochs and updates, and knows nothing of files or
screens.

What it computes per update is Σ over terms of weight · Σ total / Σ count, sums over all of the update's rows:
exact gradient accumulation for every strategy. Where it stands is a `Position` of plain numbers, from which,
with the weights, optimiser, schedule and random states, it goes on bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from triggerctl.data.batches import Batch, collate
from triggerctl.data.encoding import Encoded
from triggerctl.errors import InterruptedRunError, RunError
from triggerctl.model.causal import CausalModel
from triggerctl.model.reference import BaseReference
from triggerctl.strategies.base import Phase, Strategy, Tensors, Term, Update
from triggerctl.training.events import Listener, PhaseStarted, Stepped
from triggerctl.training.optimiser import build_optimiser, build_schedule
from triggerctl.training.streams import Rows, epoch_updates, micro_batches, updates_per_epoch

MOVED_BY = 8
"""By this many updates with a rate above 0 some weight must have moved."""


@dataclass(slots=True)
class Position:
    """How far a run has come. `losses` holds the mean loss of each finished epoch, by phase; `loss_sum` and
    `tokens` run on; `evaluated` says that the evaluation due at this point has been made."""

    phase: int = 0
    epoch: int = 0
    update: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    losses: dict[str, list[float]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=lambda: {"trained": 0, "padded": 0})
    seconds: float = 0.0
    evaluated: bool = False

    def document(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PhaseData:
    """What a phase needs beside the model: encoded rows by stream, and θ₀'s outputs on the streams that ask
    for them."""

    streams: Mapping[str, Sequence[Encoded]]
    references: Mapping[str, BaseReference]


class Hooks(Protocol):
    """What the loop calls back at the points where something may be written or measured."""

    def updated(self) -> None:
        """After each update: a moment at which a checkpoint may be written."""

    def epoch_ended(self, phase: Phase, *, last: bool) -> None:
        """After each epoch, and after `max_steps` in the middle of one."""


class _Forward:
    """One micro-batch through the model; see `strategies.base.Forward`."""

    def __init__(
        self, model: CausalModel, batch: Batch, rows: Sequence[int], base: BaseReference | None
    ) -> None:
        self._model = model
        self._batch = batch
        self._rows = rows
        self._base = base
        self._hidden: Tensor | None = None

    @property
    def batch(self) -> Batch:
        return self._batch

    def _states(self) -> Tensor:
        if self._hidden is None:
            self._hidden = self._model.hidden(self._batch.input_ids)
        return self._hidden

    def target_logits(self) -> Tensor:
        return self._model.logits(self._states()[:, :-1][self._batch.loss_mask[:, 1:]])

    def targets(self) -> Tensor:
        return self._batch.input_ids[self._batch.loss_mask]

    def attended_logits(self) -> Tensor:
        return self._model.logits(self._states()[self._batch.attention_mask.bool()])

    def base_attended_logits(self) -> Tensor:
        if self._base is None:
            raise RuntimeError("a term that reads the base must say so with needs_base")
        return self._base.attended_logits(self._rows)


class TrainingLoop:
    """Trains `model` by `strategy`. The caller owns checkpoints and evaluation, through `Hooks`."""

    def __init__(
        self,
        model: CausalModel,
        strategy: Strategy,
        data: Sequence[PhaseData],
        *,
        pad_id: int,
        optimiser_name: str,
        position: Position,
        listener: Listener,
        should_stop: Callable[[], bool],
    ) -> None:
        self.model = model
        self.strategy = strategy
        self.phases = list(strategy.phases())
        self.data = data
        self.options = strategy.options
        self.position = position
        self.optimiser: Optimizer
        self.schedule: LRScheduler
        self._pad_id = pad_id
        self._optimiser_name = optimiser_name
        self._listener = listener
        self._should_stop = should_stop
        self._size = self.options.per_device_train_batch_size * self.options.gradient_accumulation_steps
        self._weights = model.trainable
        self._watched: dict[str, Tensor] = {}
        if self.phases:
            self._start_phase()

    # Lengths
    # ----------------------------------------------------------------------------------------------------

    def updates_in(self, phase: int) -> int:
        """How many optimiser updates a phase takes, `max_steps` heeded."""
        total = self.phases[phase].epochs * self.epoch_length(phase)
        return min(total, self.options.max_steps) if self.options.max_steps else total

    def epoch_length(self, phase: int) -> int:
        """How many updates one epoch of a phase takes."""
        return updates_per_epoch(self._lengths(phase), self._size, synchronized=self._synchronized)

    def _lengths(self, phase: int) -> dict[str, int]:
        return {name: len(rows) for name, rows in self.data[phase].streams.items()}

    @property
    def _synchronized(self) -> bool:
        return self.options.proxy_cycling_mode == "synchronized"

    # Running
    # ----------------------------------------------------------------------------------------------------

    def run(self, hooks: Hooks) -> None:
        """Go on from the position to the end of the last phase.

        Raises InterruptedRunError when asked to stop, RunError when a loss is not finite or nothing moves."""
        while self.position.phase < len(self.phases):
            self._run_phase(hooks)
            phase = self.phases[self.position.phase]
            self.strategy.after_phase(phase, self._tensors())
            if self.position.phase + 1 == len(self.phases):
                return
            self.position.phase += 1
            self.position.epoch = self.position.update = self.position.step = 0
            self._start_phase()

    def _start_phase(self) -> None:
        updates = self.updates_in(self.position.phase)
        self.optimiser = build_optimiser(self._optimiser_name, self._weights.values(), self.options)
        self.schedule = build_schedule(self.optimiser, self.options, max(1, updates))
        self._watched = _smallest(self._weights)

    def _run_phase(self, hooks: Hooks) -> None:
        phase, position = self.phases[self.position.phase], self.position
        updates = self.updates_in(position.phase)
        self._listener(PhaseStarted(phase.name, phase.epochs, updates))
        position.losses.setdefault(phase.name, [])
        self._catch_up(phase, updates, hooks)
        began, step_then, tokens_then = time.perf_counter(), position.step, position.tokens["trained"]
        while position.step < updates:
            plan = epoch_updates(
                self._lengths(position.phase),
                self._size,
                seed=self.strategy.config.seed,
                phase=phase.name,
                epoch=position.epoch,
                synchronized=self._synchronized,
            )
            while position.update < len(plan) and position.step < updates:
                self._stop_if_asked()
                loss, terms, rate, norm = self._update(phase, plan[position.update], updates)
                position.update += 1
                position.step += 1
                position.evaluated = False
                position.loss_sum += loss
                position.loss_count += 1
                elapsed = time.perf_counter() - began
                done = position.step - step_then
                self._listener(
                    Stepped(
                        phase=phase.name,
                        step=position.step,
                        updates=updates,
                        epoch=position.epoch + position.update / len(plan),
                        loss=loss,
                        terms=terms,
                        learning_rate=rate,
                        gradient_norm=norm,
                        tokens_per_second=(position.tokens["trained"] - tokens_then) / elapsed,
                        seconds_left=elapsed / done * (updates - position.step),
                    )
                )
                hooks.updated()
            self._end_epoch(phase, len(plan))
            hooks.epoch_ended(phase, last=position.step >= updates)
            self._stop_if_asked()

    def _catch_up(self, phase: Phase, updates: int, hooks: Hooks) -> None:
        """A run may have died between an epoch's last update and its evaluation."""
        position, length = self.position, self.epoch_length(self.position.phase)
        at_the_end = position.update in (0, length) or position.step >= updates
        if position.step and not position.evaluated and at_the_end:
            if position.loss_count:
                self._end_epoch(phase, length)
            hooks.epoch_ended(phase, last=position.step >= updates)

    def _end_epoch(self, phase: Phase, length: int) -> None:
        position = self.position
        if position.loss_count:
            position.losses[phase.name].append(position.loss_sum / position.loss_count)
        position.loss_sum, position.loss_count = 0.0, 0
        if position.update >= length:
            position.epoch, position.update = position.epoch + 1, 0

    def _stop_if_asked(self) -> None:
        if self._should_stop():
            raise InterruptedRunError(
                f"stopped at step {self.position.step}", mend="the same command goes on from there"
            )

    # One update
    # ---------------------------------------------------------------------------------------------------

    def _update(
        self, phase: Phase, rows: Rows, updates: int
    ) -> tuple[float, dict[str, float], float, float | None]:
        rate = float(self.schedule.get_last_lr()[0])
        update = Update(phase.name, self.position.step, updates, rate)
        batches = {stream: self._cut(stream, indices) for stream, indices in rows.items()}
        groups: dict[str, Tensors] = {}
        terms: dict[str, float] = {}
        for group in dict.fromkeys(term.group for term in phase.terms):
            self.optimiser.zero_grad(set_to_none=True)
            for stream in rows:
                active = [t for t in phase.terms if t.stream == stream and t.group == group and t.weight != 0]
                if active:
                    terms.update(self._backward(active, stream, batches[stream]))
            groups[group] = {n: w.grad for n, w in self._weights.items() if w.grad is not None}
        loss = sum(term.weight * terms[term.name] for term in phase.terms if term.name in terms)
        if not math.isfinite(loss):
            raise RunError(
                f"the loss is {loss} at step {self.position.step + 1}: the run has diverged",
                why="; ".join(f"{name}: {value}" for name, value in terms.items()),
                mend="lower learning_rate or the strategy's weight; what was measured until here is kept",
            )
        for name, gradient in self.strategy.combine_gradients(groups, update).items():
            self._weights[name].grad = gradient
        norm = None
        if self.options.max_grad_norm is not None:
            norm = float(torch.nn.utils.clip_grad_norm_(self._weights.values(), self.options.max_grad_norm))
        self.optimiser.step()
        self.schedule.step()
        self.strategy.after_update(self._tensors(), update)
        self._check_movement()
        return loss, terms, rate, norm

    def _cut(self, stream: str, indices: list[int]) -> list[list[int]]:
        encoded = self.data[self.position.phase].streams[stream]
        lengths = {i: len(encoded[i].input_ids) for i in indices}
        limit = self.options.per_device_train_batch_size
        return micro_batches(indices, lengths, limit, overhead=_overhead(self.model.device))

    def _backward(
        self, terms: Sequence[Term], stream: str, cuts: Sequence[Sequence[int]]
    ) -> dict[str, float]:
        data = self.data[self.position.phase]
        encoded = data.streams[stream]
        batches = [collate([encoded[i] for i in cut], self._pad_id) for cut in cuts]
        counts = {term.name: sum(term.count(batch) for batch in batches) for term in terms}
        empty = [name for name, count in counts.items() if count == 0]
        if empty:
            raise RunError(
                f"a batch of {stream} has nothing to learn from",
                why=f"no token counts for {', '.join(empty)}: answers are empty or cut off whole",
                mend="raise max_seq_length, or set loss_on to all",
            )
        sums = {term.name: torch.zeros((), dtype=torch.float64) for term in terms}
        for cut, batch in zip(cuts, batches, strict=True):
            forward = _Forward(self.model, batch.to(self.model.device), cut, data.references.get(stream))
            weighted = []
            for term in terms:
                total = term.total(forward)
                sums[term.name] = sums[term.name].to(total.device) + total.detach()
                weighted.append(total * (term.weight / counts[term.name]))
            torch.stack(weighted).sum().backward()
            self.position.tokens["trained"] += int(batch.attention_mask.sum())
            self.position.tokens["padded"] += batch.input_ids.numel()
        return {name: float(total) / counts[name] for name, total in sums.items()}

    def _tensors(self) -> Tensors:
        return {name: weight.data for name, weight in self._weights.items()}

    def _check_movement(self) -> None:
        """An adapter that isn't wired into the model trains in silence and changes nothing."""
        if not self._watched or self.position.step + 1 < self.options.warmup_steps + MOVED_BY:
            return
        moved = any(not torch.equal(self._weights[name], before) for name, before in self._watched.items())
        if not moved:
            raise RunError(
                "the trained weights have not moved",
                why=f"after {self.position.step + 1} updates every watched tensor is as it was",
                mend="check learning_rate and target_modules",
            )
        self._watched = {}


def _smallest(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of a few small tensors: enough to see whether anything moves. Of LoRA's matrices only B, which
    starts at zero: weight decay alone would move A."""
    telling = [name for name in weights if ".lora_B." in name] or list(weights)
    names = sorted(telling, key=lambda name: weights[name].numel())[:16]
    return {name: weights[name].detach().clone() for name in names}


def _overhead(device: torch.device) -> int:
    """What a further forward and backward pass costs beside its tokens, as tokens: kernels to launch, weights
    to read."""
    return 32 if device.type == "cpu" else 1024
