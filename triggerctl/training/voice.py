"""What a run says of itself, and how: it is told to all who listen, one after the other. A run that another
process has taken over says nothing any more."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from triggerctl.errors import TriggerctlError
from triggerctl.experiment.claim import Claim
from triggerctl.model.device import dtype_name
from triggerctl.training.begun import Begun
from triggerctl.training.events import Event, Failed, Listener, Noted, Started, Warned
from triggerctl.training.loop import TrainingLoop
from triggerctl.training.plan import RunPlan
from triggerctl.training.setup import Prepared


class Voice:
    """`held`: the claim of the run that speaks; `warnings`: the run's list of what its user must know, to
    which more is added."""

    def __init__(self, listeners: Sequence[Listener], held: Claim, warnings: list[str]) -> None:
        self._listeners = listeners
        self._claim = held
        self._warnings = warnings

    def say(self, event: Event) -> None:
        """Raises the claim's error where the run is no longer this process's."""
        self._claim.check()
        for listener in self._listeners:
            listener(event)

    def note(self, message: str) -> None:
        self.say(Noted(message))

    def warn(self, message: str) -> None:
        self._warnings.append(message)
        self.say(Warned(message))

    def fail(self, error: str) -> None:
        """To each as far as it can hear: on a full disk there may be no room for the state, and the error
        itself must come through. A run that another process has taken over is no longer ours to speak of."""
        if self._claim.lost.is_set():
            return
        for listener in self._listeners:
            try:
                listener(Failed(error))
            except TriggerctlError as second:
                logging.getLogger("triggerctl.run").warning("the failure can't be written down: %s", second)


def announcement(
    plan: RunPlan, prepared: Prepared, begun: Begun, results: Path, loop: TrainingLoop
) -> Started:
    """What a run says first: what it is, and what it is about to do."""
    return Started(
        folder=plan.folder.path,
        results=results,
        strategy=plan.strategy.name,
        seed=plan.config.seed,
        hash=plan.hash,
        epochs=loop.epochs,
        updates=loop.updates,
        parameters=prepared.shape.parameters,
        trainable=prepared.shape.trainable,
        device=str(prepared.device),
        dtype=dtype_name(prepared.dtype),
        threads=begun.threads,
        resumed_step=loop.position.step if begun.checkpoint else None,
        processes=begun.processes,
    )
