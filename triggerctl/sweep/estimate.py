"""What a sweep's runs will take, before any is begun. Runs that differ in nothing but their seed take alike,
so one of them is looked at."""

from __future__ import annotations

from dataclasses import dataclass

from triggerctl.sweep.plan import PlannedCell, Sweep
from triggerctl.training.plan import plan_run


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one run: seconds on the whole machine, and peak memory in bytes."""

    seconds: float
    memory_bytes: int


def estimates(sweep: Sweep, *, device: str) -> dict[str, Estimate]:
    """The cells to be trained, by their hash.

    Raises InputError where a model can't be used as asked."""
    from triggerctl.training.describe import describe

    by_variant: dict[str, Estimate] = {}
    found = {}
    for planned in sweep.planned:
        if not planned.is_to_train:
            continue
        variant = _variant(planned)
        if variant not in by_variant:
            plan = plan_run(planned.folder, planned.readable, dont_overwrite=sweep.dont_overwrite)
            described = describe(plan, device=device)
            by_variant[variant] = Estimate(described.seconds, described.memory_bytes)
        found[planned.hash] = by_variant[variant]
    return found


def _variant(planned: PlannedCell) -> str:
    return planned.config.model_dump_json(exclude={"seed", "experiment_name"})
