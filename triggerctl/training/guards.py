"""Training that has gone wrong is stopped at once, with the reason: a loss that is not a number, a model that
is worse than any guess, weights that never move."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from triggerctl.config.finetune import FinetuneConfig
from triggerctl.errors import RunError
from triggerctl.strategies.base import LOSS, Phase, Update
from triggerctl.training.gradients import UpdateGradients

MOVED_BY = 8
"""By this many updates with a rate above 0 some weight must have moved."""

WORSE_THAN_A_GUESS = 1.5
"""A cross-entropy that is to fall, and is this many times that of guessing every token alike, or of the model
at first if that was higher, is divergence. One that is to rise may rise: posneg's negative term has no bound,
and the run is lost when it takes the task with it."""

_KEPT = "what was measured until here is kept"


class Guards:
    """Watches one phase. `weights` are those being trained, `vocabulary` the number of tokens."""

    def __init__(self, weights: Mapping[str, Tensor], vocabulary: int, options: FinetuneConfig) -> None:
        self._weights = weights
        self._watched = _smallest(weights)
        self._guess = math.log(vocabulary)
        self._first: dict[str, float] = {}
        self._warmup = options.warmup_steps

    def check_terms(self, phase: Phase, found: UpdateGradients, update: Update) -> None:
        """Raises RunError where the update's losses say that the run has diverged."""
        where = f"step {update.index + 1} of {phase.name}"
        values = ", ".join(f"{name}: {value:.4g}" for name, value in found.terms.items())
        mend = f"lower learning_rate or the strategy's weight; {_KEPT}"
        broken = [name for name, value in found.terms.items() if not math.isfinite(value)]
        if broken:
            raise RunError(
                f"{broken[0]} is {found.terms[broken[0]]} at {where}: the run has diverged",
                why=values,
                mend=mend,
            )
        for term in phase.terms:
            value = found.terms.get(term.name)
            is_to_fall = term.is_cross_entropy and term.group == LOSS and term.weight > 0
            if value is None or not is_to_fall:
                continue
            limit = WORSE_THAN_A_GUESS * max(self._guess, self._first.setdefault(term.name, value))
            if value > limit:
                raise RunError(
                    f"{term.name} is {value:.4g} at {where}: the run has diverged",
                    why=f"guessing every token alike would give {self._guess:.4g}; {values}",
                    mend=mend,
                )

    def check_movement(self, update: Update) -> None:
        """An adapter that isn't wired into the model trains in silence and changes nothing.

        Raises RunError where no watched weight has moved by the time that one must have."""
        if not self._watched or update.index + 1 < self._warmup + MOVED_BY:
            return
        if not any(not torch.equal(self._weights[name], before) for name, before in self._watched.items()):
            raise RunError(
                "the trained weights have not moved",
                why=f"after {update.index + 1} updates every watched tensor is as it was",
                mend="check learning_rate and target_modules",
            )
        self._watched = {}


def _smallest(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of a few small tensors: enough to see whether anything moves. Of LoRA's matrices only B, which
    starts at zero: weight decay alone would move A. Else matrices: in 16 bits a norm's weights, all near 1,
    stay where they are under many an update that moves smaller numbers."""
    telling = (
        [name for name in weights if ".lora_B." in name]
        or [name for name in weights if weights[name].ndim > 1]
        or list(weights)
    )
    names = sorted(telling, key=lambda name: weights[name].numel())[:16]
    return {name: weights[name].detach().clone() for name in names}
