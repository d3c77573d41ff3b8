"""Whether a sweep's cells can be trained with their models and data, before any of them is, and what each
run will cost. Torch is imported inside: whoever only passes the answer on must not pay for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from triggerctl.errors import Problem, TriggerctlError
from triggerctl.garbage import all_that_is_made_stays
from triggerctl.sweep.cell import CellJob, RunSettings, defect
from triggerctl.training.plan import plan_run


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found.

    problems: why runs can't be made, by their hash.
    memory:   a run's estimated peak in bytes, by its hash.
    kind:     of the device: "cpu", "cuda" or "mps"; `devices` of them are there to share, each with
              `capacity` bytes.
    """

    problems: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    kind: str = "cpu"
    devices: int = 1
    capacity: int = 0


@all_that_is_made_stays()
def check_cells(jobs: Sequence[CellJob], settings: RunSettings) -> Checked:
    """Look at every cell's model without loading its weights, each model and way of using it once, and
    whether any row is short enough to train on. A worker's libraries are loaded on the way."""
    from triggerctl.model.device import device_count, resolve_device
    from triggerctl.model.memory import capacity_bytes
    from triggerctl.training.followers import devices_of
    from triggerctl.training.model_use import ModelUse, model_use
    from triggerctl.training.tokenising import check_lengths, encoder_of

    problems: dict[str, tuple[Problem, ...]] = {}
    memory: dict[str, int] = {}
    known: dict[str, ModelUse] = {}
    try:
        device = resolve_device(settings.device)
        devices_of(device, settings.gpus_per_run)
    except TriggerctlError as error:
        return Checked({job.hash: error.problems for job in jobs})
    for job in jobs:
        try:
            plan = plan_run(job.folder, job.loaded, dont_overwrite=settings.dont_overwrite)
            use = model_use(plan, device, known=known)
            check_lengths(plan, encoder_of(plan, use.tokenizer), use.shape.positions)
            memory[job.hash] = use.memory_bytes
        except TriggerctlError as error:
            problems[job.hash] = error.problems
        except Exception as error:  # noqa: BLE001 - its words would be lost with the worker
            problems[job.hash] = defect(error, job).problems
    return Checked(problems, memory, device.type, device_count(device), capacity_bytes(device))
