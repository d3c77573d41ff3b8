"""What a run says while it works. The engine speaks in these events and in nothing else; the console,
metrics.jsonl, state.json and trackers listen. A listener is a plain callable; it must not raise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from triggerctl.experiment.results import Evaluation


@dataclass(frozen=True, slots=True)
class Started:
    """A run begins, or goes on from `resumed_step` (None: from the start). `epochs` and `updates`, the
    optimiser's, are of all phases and as many as will be made: with `max_steps` an epoch may be a part of
    one. `processes`: how many train it, of `threads` each."""

    folder: Path
    results: Path
    strategy: str
    seed: int
    hash: str
    epochs: float
    updates: int
    parameters: int
    trainable: int
    device: str
    dtype: str
    threads: int
    resumed_step: int | None = None
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """Work outside training: `stage` is one of "download", "load model", "tokenise", "evaluate", "base pass",
    "figures"; `done` of `total` units (bytes, rows or sequences; total None: unknown)."""

    stage: str
    done: int
    total: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase of the strategy begins; most have one, "main". Its counts are as in `Started`."""

    phase: str
    epochs: float
    updates: int


@dataclass(frozen=True, slots=True)
class Stepped:
    """One optimiser update is done. `loss` is the strategy's whole loss over the update's rows, `terms` its
    parts before weighting; `tokens_per_second` counts attended tokens and training time since the phase
    began; `seconds_left` is for the rest of the run, evaluations and later phases included; `before`: updates
    of the phases before this one."""

    phase: str
    step: int
    updates: int
    epoch: float
    loss: float
    terms: dict[str, float]
    learning_rate: float
    gradient_norm: float | None
    tokens_per_second: float
    seconds_left: float
    before: int = 0


@dataclass(frozen=True, slots=True)
class Evaluated:
    """All sets were evaluated."""

    evaluation: Evaluation
    seconds: float


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """A checkpoint stands whole on disk."""

    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user must know; also kept in results.json."""

    message: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Something worth a line, and no cause for worry."""

    message: str


@dataclass(frozen=True, slots=True)
class Finished:
    """results.json is written; the run is done."""

    results: Path
    seconds: float


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The run was asked to stop and has written its checkpoint at `step`."""

    step: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The run can't go on; what was measured stays on disk."""

    error: str


Event = (
    Started
    | Progress
    | PhaseStarted
    | Stepped
    | Evaluated
    | Checkpointed
    | Warned
    | Noted
    | Finished
    | Interrupted
    | Failed
)
Listener = Callable[[Event], None]
