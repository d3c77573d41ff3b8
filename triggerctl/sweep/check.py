"""Whether the models of a sweep's cells can be used as asked, before any of them trains, and what each run
will cost. Torch is imported inside: whoever only passes the answer on must not pay for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from triggerctl.errors import InputError, Problem
from triggerctl.sweep.cell import CellJob, RunSettings
from triggerctl.training.plan import plan_run


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found. `memory`: a run's estimated peak in bytes, by its hash; `capacity`: how many bytes the
    device has; `devices`: how many devices there are to share, 1 for a CPU."""

    problems: tuple[Problem, ...] = ()
    memory: Mapping[str, int] = field(default_factory=dict)
    capacity: int = 0
    devices: int = 1


def check_cells(jobs: Sequence[CellJob], settings: RunSettings) -> Checked:
    """Look at every cell's model without loading its weights, each model and way of using it once."""
    from triggerctl.model.device import device_count, resolve_device
    from triggerctl.model.memory import capacity_bytes
    from triggerctl.training.describe import ModelUse, model_use

    problems: list[Problem] = []
    memory: dict[str, int] = {}
    known: dict[str, ModelUse] = {}
    try:
        device = resolve_device(settings.device)
    except InputError as error:
        return Checked(problems=error.problems)
    for job in jobs:
        try:
            plan = plan_run(job.folder, job.loaded, dont_overwrite=settings.dont_overwrite)
            memory[job.hash] = model_use(plan, device, known=known).memory_bytes
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    return Checked(tuple(problems), memory, capacity_bytes(device), device_count(device))
