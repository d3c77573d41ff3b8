"""The one training loop. It walks a strategy's phases, epochs and updates, and knows nothing of files or
screens. Where it stands is a `Position` of plain numbers, from which, with the weights, optimiser, schedule,
random states and what the strategy has gathered, it goes on bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from triggerctl.errors import InterruptedRunError
from triggerctl.model.causal import CausalModel
from triggerctl.strategies.base import MAIN, Phase, Strategy, Tensors, Update
from triggerctl.training.chance import named_seed
from triggerctl.training.events import Listener, PhaseStarted, Stepped
from triggerctl.training.gradients import AHEAD, GradientPass, PhaseData
from triggerctl.training.guards import Guards
from triggerctl.training.optimiser import build_optimiser, build_schedule
from triggerctl.training.parallel import ALONE, Group
from triggerctl.training.position import Pace, Position
from triggerctl.training.streams import (
    Units,
    epoch_updates,
    phase_updates,
    units_per_update,
    updates_per_epoch,
)


class Hooks(Protocol):
    """What the loop calls back at the points where something may be written or measured."""

    def updated(self) -> None:
        """After each update: a moment at which a checkpoint may be written."""

    def epoch_ended(self, phase: Phase, *, last: bool) -> None:
        """After each epoch, and after `max_steps` in the middle of one."""

    def phase_ended(self, phase: Phase) -> None:
        """After each phase, once the strategy has taken what it wants of it."""


class TrainingLoop:
    """Trains `model` by `strategy`. The caller owns checkpoints and evaluation, through `Hooks`.

    `micro_batch`: units that go through the model at once, None for the configuration's; the updates are the
    same whatever it is."""

    def __init__(
        self,
        model: CausalModel,
        strategy: Strategy,
        data: Sequence[PhaseData],
        *,
        pad_id: int,
        optimiser_name: str,
        micro_batch: int | None = None,
        position: Position,
        listener: Listener,
        should_stop: Callable[[], bool],
        group: Group = ALONE,
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
        self._micro_batch = micro_batch or self.options.per_device_train_batch_size
        self._listener = listener
        self._should_stop = should_stop
        self._group = group
        self._weights: dict[str, torch.nn.Parameter] = model.trainable
        self._initial = _initial(self.phases, self._weights)
        self._pass: GradientPass
        self._guards: Guards
        self._tokens_at_once: float
        if self.phases:
            for earlier in self.phases[: position.phase]:
                self._rearrange(earlier)
            self._start_phase()

    # Lengths
    # ----------------------------------------------------------------------------------------------------

    @property
    def updates(self) -> int:
        """How many optimiser updates all phases take together."""
        return sum(self.updates_in(phase) for phase in range(len(self.phases)))

    def updates_in(self, phase: int) -> int:
        """How many optimiser updates a phase takes, `max_steps` heeded."""
        return phase_updates(self.phases[phase], self._lengths(phase), self.options)

    @property
    def epochs(self) -> float:
        """How many epochs all phases take together, a part of one where `max_steps` ends it."""
        return sum((self.epochs_in(phase) for phase in range(len(self.phases))), start=0.0)

    def epochs_in(self, phase: int) -> float:
        """How many epochs a phase takes, `max_steps` heeded."""
        asked, length = self.phases[phase].epochs, self.epoch_length(phase)
        return self.updates_in(phase) / length if length else float(asked)

    def epoch_length(self, phase: int) -> int:
        """How many updates one epoch of a phase takes."""
        return updates_per_epoch(
            self._lengths(phase), units_per_update(self.options), synchronized=self._synchronized
        )

    def updates_left(self) -> int:
        """How many updates are still to be made, in all phases."""
        here = self.position.phase
        return sum(self.updates_in(i) for i in range(here, len(self.phases))) - self.position.step

    def _lengths(self, phase: int) -> dict[str, int]:
        return {name: len(stream) for name, stream in self.data[phase].streams.items()}

    def _mean_tokens_at_once(self) -> float:
        """Of one micro-batch of the pacing stream."""
        pacing = next(iter(self.data[self.position.phase].streams.values()), None)
        if not pacing:
            return 0
        mean = sum(len(row.input_ids) for row in pacing.rows) / len(pacing)
        return mean * min(self._micro_batch, len(pacing))

    @property
    def _synchronized(self) -> bool:
        return self.options.proxy_cycling_mode == "synchronized"

    # Running
    # ----------------------------------------------------------------------------------------------------

    def run(self, hooks: Hooks) -> None:
        """Go on from the position to the end of the last phase.

        Raises InterruptedRunError when asked to stop, RunError when training diverges or nothing moves."""
        while self.position.phase < len(self.phases):
            self._run_phase(hooks)
            phase = self.phases[self.position.phase]
            with torch.no_grad():
                self.strategy.after_phase(phase, self._tensors())
            hooks.phase_ended(phase)
            if self.position.phase + 1 == len(self.phases):
                return
            self.position.next_phase()
            self._start_phase()

    def skip_to(self, phase: int) -> None:
        """Begin at a later phase, as what the ones before it find is known already."""
        self.position.phase = phase
        self._start_phase()

    def _rearrange(self, phase: Phase) -> None:
        """Put the model into the shape in which a phase trains it."""
        if phase.starts_from == "stacked":
            self.model.stack(seed=named_seed(self.strategy.config.seed, f"initialisation/{phase.name}"))
            self._weights = self.model.trainable

    def _start_phase(self) -> None:
        phase = self.phases[self.position.phase]
        self._rearrange(phase)
        if phase.starts_from == "initial":
            with torch.no_grad():
                for name, weight in self._initial.items():
                    self._weights[name].copy_(weight)
        self.strategy.before_phase(phase, self._tensors())
        updates = self.updates_in(self.position.phase)
        self.optimiser = build_optimiser(self._optimiser_name, self._weights.values(), self.options)
        self.schedule = build_schedule(self.optimiser, self.options, max(1, updates))
        self._guards = Guards(self._weights, self.model.vocabulary, self.options)
        self._tokens_at_once = self._mean_tokens_at_once()
        self._pass = GradientPass(
            self.model,
            phase,
            self.data[self.position.phase],
            self._weights,
            limit=self._micro_batch,
            pad_id=self._pad_id,
            group=self._group,
        )
        # A phase's chance is its own: it is the same whether the phases before it were run or not.
        chance = "dropout" if phase.name == MAIN else f"dropout/{phase.name}"
        torch.manual_seed(named_seed(self.strategy.config.seed, chance))

    def _run_phase(self, hooks: Hooks) -> None:
        phase, position = self.phases[self.position.phase], self.position
        updates = self.updates_in(position.phase)
        self._listener(PhaseStarted(phase.name, self.epochs_in(position.phase), updates))
        position.losses.setdefault(phase.name, [])
        self._catch_up(phase, updates, hooks)
        pace = Pace(position)
        while position.step < updates:
            plan = epoch_updates(
                self._lengths(position.phase),
                units_per_update(self.options),
                seed=self.strategy.config.seed,
                phase=phase.name,
                epoch=position.epoch,
                synchronized=self._synchronized,
            )
            with self.model.layers_stay(), self.model.threads_for(self._tokens_at_once):
                self._run_epoch(phase, plan, updates, pace, hooks)
            position.close_epoch(len(plan))
            hooks.epoch_ended(phase, last=position.step >= updates)
            self._stop_if_asked()

    def _run_epoch(self, phase: Phase, plan: Sequence[Units], updates: int, pace: Pace, hooks: Hooks) -> None:
        """What is left of one, from the position on."""
        position = self.position
        while position.update < len(plan) and position.step < updates:
            self._stop_if_asked()
            with pace.training():
                ahead = plan[position.update : position.update + AHEAD]
                loss, terms, rate, norm = self._update(phase, ahead, updates)
            position.advance()
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
                    tokens_per_second=pace.tokens_per_second,
                    seconds_left=pace.seconds_left(self.updates_left()),
                    before=sum(map(self.updates_in, range(position.phase))),
                )
            )
            hooks.updated()

    def _catch_up(self, phase: Phase, updates: int, hooks: Hooks) -> None:
        """A run may have died between an epoch's last update and its evaluation."""
        position, length = self.position, self.epoch_length(self.position.phase)
        at_the_end = position.update in (0, length) or position.step >= updates
        if position.step and not position.evaluated and at_the_end:
            if position.sums:
                position.close_epoch(length)
            hooks.epoch_ended(phase, last=position.step >= updates)

    def _stop_if_asked(self) -> None:
        if self._should_stop():
            raise InterruptedRunError(
                f"stopped at step {self.position.step}", mend="the same command goes on from there"
            )

    # One update
    # ---------------------------------------------------------------------------------------------------

    def _update(
        self, phase: Phase, plan: Sequence[Units], updates: int
    ) -> tuple[float, dict[str, float], float, float | None]:
        """By the first of `plan`; the others come next."""
        rate = float(self.schedule.get_last_lr()[0])
        update = Update(phase.name, self.position.step, updates, rate)
        if not self._group.is_first:
            # Its dropout is its own, and the same after a resume: checkpoints hold the first one's state.
            chance = f"dropout/{phase.name}/update {update.index}/process {self._group.rank}"
            torch.manual_seed(named_seed(self.strategy.config.seed, chance))
        found = self._pass.of(plan[0], plan[1:])
        self.position.tokens["trained"] += found.trained
        self.position.tokens["padded"] += found.padded
        self._guards.check_terms(phase, found, update)
        with torch.no_grad():
            for name, gradient in self.strategy.combine_gradients(found.groups, update).items():
                self._weights[name].grad = gradient
        norm = None
        if self.options.max_grad_norm is not None:
            norm = float(torch.nn.utils.clip_grad_norm_(self._weights.values(), self.options.max_grad_norm))
        self.optimiser.step()
        self.schedule.step()
        with torch.no_grad():
            self.strategy.after_update(self._tensors(), update)
        self.model.weights_moved()
        self._guards.check_movement(update)
        for name, value in found.terms.items():
            self.position.add(f"{phase.name}/{name}", value)
        if found.loss is not None:
            self.position.add(phase.name, found.loss)
        return (0.0 if found.loss is None else found.loss), found.terms, rate, norm

    def _tensors(self) -> Tensors:
        return {name: weight.data for name, weight in self._weights.items()}


def _initial(phases: Sequence[Phase], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights before any training, where a later phase starts from them: with LoRA a copy of the adapter,
    else one of the model, in the CPU's memory."""
    if not any(phase.starts_from == "initial" for phase in phases[1:]):
        return {}
    return {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}
