"""A sweep in this process: every cell is checked before any starts, then one after the other is trained."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import torch

from triggerctl.config.load import LoadedConfig, load_config
from triggerctl.config.models import ExperimentConfig
from triggerctl.config.overrides import apply_overrides
from triggerctl.errors import BusyError, InputError, InterruptedRunError, Problem, TriggerctlError
from triggerctl.experiment.atomic import make_folder, write_text_atomic
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.model.adapters import adapter_size
from triggerctl.model.device import resolve_device, resolve_dtype
from triggerctl.model.load import empty_model, load_tokenizer, locate
from triggerctl.model.quantise import probe
from triggerctl.sweep.grid import Cell, cells, prepare_cell
from triggerctl.sweep.record import new_record, write_record
from triggerctl.training.events import Listener
from triggerctl.training.outcome import Figures
from triggerctl.training.plan import Action, RunPlan, plan_run
from triggerctl.training.planes import check_plane
from triggerctl.training.run import execute
from triggerctl.training.settle import settle_skipped

Progress = Callable[[int, int | None], None]

_MODEL_KEYS = {
    "revision",
    "trust_remote_code",
    "attn_implementation",
    "dtype",
    "load_in_8bit",
    "load_in_4bit",
    "is_peft",
    "r",
    "target_modules",
}


class Outcome(StrEnum):
    """What became of a cell. KEPT: results of another configuration, left alone as asked; BUSY: another
    process is at it; SAME: another cell here is the same run."""

    DONE = "done"
    SKIPPED = "skipped"
    KEPT = "kept"
    SAME = "same"
    BUSY = "busy"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell that was checked. `same_as` is the earlier cell with the same hash, None for most."""

    cell: Cell
    loaded: LoadedConfig
    hash: str
    action: Action
    reason: str
    warnings: tuple[str, ...]
    same_as: Cell | None = None


@dataclass(frozen=True, slots=True)
class CellOutcome:
    """A cell that was dealt with. `results` is its results folder where it has finished ones."""

    planned: PlannedCell
    outcome: Outcome
    reason: str
    seconds: float = 0.0
    results: Path | None = None
    error: TriggerctlError | None = None


class Screen(Protocol):
    """Who shows a sweep."""

    def starting(self, planned: PlannedCell, index: int, total: int) -> Listener:
        """A cell is about to be trained, `index` from 1; what is returned hears its events."""

    def ended(self, outcome: CellOutcome) -> None:
        """A cell was dealt with."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep that was checked and may start. `fresh` is not among its options: a sweep does what is
    missing."""

    folder: ExperimentFolder
    planned: tuple[PlannedCell, ...]
    seeds: tuple[int, ...]
    strategies: tuple[str, ...]
    dont_overwrite: bool = False
    command: tuple[str, ...] = field(default=())


def plan_sweep(
    folder: ExperimentFolder,
    loaded: LoadedConfig,
    *,
    seeds: Sequence[int],
    strategies: Sequence[str],
    dont_overwrite: bool = False,
    device: str = "auto",
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Sweep:
    """Check every cell and say what would become of it; nothing is written.

    Raises InputError that holds the problems of all cells that can't be run."""
    chosen = resolve_device(device)
    checked_models: set[str] = set()
    planned: list[PlannedCell] = []
    problems: list[Problem] = []
    first_with: dict[str, Cell] = {}
    for cell in cells(folder, loaded, seeds, strategies):
        try:
            # First as overrides of the parent's file, whose lines an error can name. Until the cell's folder
            # is there, no relative path can start in it, and the parent's own paths are looked up instead.
            checked = load_config(loaded.path, overrides=cell.overrides)
            own = prepare_cell(folder, loaded, cell)
            seen = own if cell.folder.path.is_dir() else checked
            plan = plan_run(cell.folder, seen, dont_overwrite=dont_overwrite, progress=progress)
            if plan.action in (Action.RUN, Action.RESUME):
                _check_model(plan, chosen, checked_models)
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
            continue
        same_as = first_with.setdefault(plan.hash, cell)
        planned.append(
            PlannedCell(
                cell=cell,
                loaded=own,
                hash=plan.hash,
                action=plan.action,
                reason=plan.reason,
                warnings=plan.warnings,
                same_as=same_as if same_as is not cell else None,
            )
        )
    if problems:
        first, *others = problems
        raise InputError(first.what, where=first.where, why=first.why, mend=first.mend, also=tuple(others))
    names = tuple(dict.fromkeys(p.cell.strategy for p in planned if p.cell.strategy is not None))
    swept = tuple(dict.fromkeys(p.cell.seed for p in planned))
    return Sweep(folder, tuple(planned), swept, names, dont_overwrite, tuple(command))


def _check_model(plan: RunPlan, device: torch.device, checked: set[str]) -> None:
    """Whether a plan's model can be used as asked, without loading its weights; each model and way of using
    it once.

    Raises InputError."""
    check_plane(plan)
    options = plan.config.finetune_config
    asked = options.model_dump_json(include=_MODEL_KEYS)
    key = f"{plan.model.fingerprint} {asked}"
    if key in checked:
        return
    if options.load_in_8bit or options.load_in_4bit:
        probe(options, device, resolve_dtype(options, device))
    files = locate(plan.model, options, weights=False)
    load_tokenizer(files, options)
    if options.is_peft:
        adapter_size(empty_model(files, options), options)
    checked.add(key)


def run_sweep(
    sweep: Sweep,
    *,
    screen: Screen,
    stop: threading.Event,
    figures: Callable[[ExperimentConfig], Figures],
    device: str = "auto",
    threads: int | None = None,
    fail_fast: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[CellOutcome]:
    """Train what is missing, failed or interrupted, cell by cell, and keep the sweep's record.

    Goes on past a failed run unless `fail_fast`; ends early once `stop` is set. What was not reached has no
    outcome. Raises InputError when the experiment's folder can't be written.
    """
    started = now()
    record = new_record(sweep.folder.sweeps, started)
    outcomes: dict[int, CellOutcome] = {}

    def keep(finished: datetime | None) -> None:
        write_record(
            record,
            command=sweep.command,
            seeds=sweep.seeds,
            strategies=sweep.strategies,
            started=started,
            finished=finished,
            cells=[_recorded(sweep, p, outcomes.get(i)) for i, p in enumerate(sweep.planned)],
        )

    def engine(plan: RunPlan, listener: Listener) -> Path:
        drawing = figures(plan.config)
        return execute(plan, listener=listener, stop=stop, figures=drawing, device=device, threads=threads)

    for planned in sweep.planned:
        if planned.same_as is None and planned.action in (Action.RUN, Action.RESUME):
            _write_config(planned)
    keep(None)
    for index, planned in enumerate(sweep.planned):
        if stop.is_set():
            break
        ended = _deal_with(sweep, planned, index, screen, engine)
        outcomes[index] = ended
        keep(None)
        screen.ended(ended)
        if ended.outcome is Outcome.INTERRUPTED or (fail_fast and ended.outcome is Outcome.FAILED):
            break
    keep(now())
    return list(outcomes.values())


def _deal_with(
    sweep: Sweep,
    planned: PlannedCell,
    index: int,
    screen: Screen,
    engine: Callable[[RunPlan, Listener], Path],
) -> CellOutcome:
    if planned.same_as is not None:
        other = planned.same_as.folder.path.relative_to(sweep.folder.path)
        return CellOutcome(
            planned, Outcome.SAME, f"differs from {other} only in keys that its strategy doesn't read"
        )
    began = time.monotonic()
    try:
        # Planned anew: while earlier cells trained, another process may have finished this one.
        plan = plan_run(planned.cell.folder, planned.loaded, dont_overwrite=sweep.dont_overwrite)
        if plan.action is Action.SKIP:
            settle_skipped(plan)
            return CellOutcome(planned, Outcome.SKIPPED, plan.reason, results=plan.finished)
        if plan.action is Action.BLOCKED:
            return CellOutcome(planned, Outcome.KEPT, plan.reason)
        listener = screen.starting(planned, index + 1, len(sweep.planned))
        results = engine(plan, listener)
        return CellOutcome(planned, Outcome.DONE, plan.reason, time.monotonic() - began, results)
    except BusyError as error:
        return CellOutcome(planned, Outcome.BUSY, str(error))
    except InterruptedRunError as error:
        return CellOutcome(planned, Outcome.INTERRUPTED, str(error), time.monotonic() - began)
    except TriggerctlError as error:
        return CellOutcome(planned, Outcome.FAILED, str(error), time.monotonic() - began, error=error)
    except Exception as error:  # noqa: BLE001 - one run's defect must not take the other runs with it
        wrapped = TriggerctlError(
            f"{type(error).__name__}: {error}",
            where=str(planned.cell.folder.path),
            why="this is a defect of triggerctl, not of your input",
            mend=f"triggerctl --debug run {planned.cell.folder.path} shows the traceback",
        )
        return CellOutcome(planned, Outcome.FAILED, str(wrapped), time.monotonic() - began, error=wrapped)


def _write_config(planned: PlannedCell) -> None:
    """Write a cell's config.json where it is not there or does not say what the cell is now."""
    values = apply_overrides(planned.loaded.given, planned.cell.overrides)
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    path = planned.cell.folder.config
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    make_folder(path.parent)
    write_text_atomic(path, text)


def _recorded(sweep: Sweep, planned: PlannedCell, ended: CellOutcome | None) -> dict[str, Any]:
    return {
        "folder": planned.cell.folder.path.relative_to(sweep.folder.path).as_posix(),
        "strategy": planned.loaded.config.proxy_strategy,
        "seed": planned.cell.seed,
        "hash": planned.hash,
        "outcome": ended.outcome.value if ended is not None else None,
        "reason": ended.reason if ended is not None else planned.reason,
        "results": ended.results.name if ended is not None and ended.results is not None else None,
        "seconds": round(ended.seconds, 3) if ended is not None else None,
    }
