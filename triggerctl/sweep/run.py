"""A sweep as it is carried out: what is missing is checked, written down and given to a launcher; what
becomes of each cell is kept in the sweep's record."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from triggerctl import disk
from triggerctl.config.overrides import apply_overrides
from triggerctl.errors import Problem, TriggerctlError
from triggerctl.experiment.atomic import disk_errors, make_folder, write_text_atomic
from triggerctl.experiment.cache import clear_cache_leavings, trim_cache
from triggerctl.sweep.cell import CellJob, CellOutcome, Outcome, RunSettings
from triggerctl.sweep.launchers.base import Launcher
from triggerctl.sweep.plan import PlannedCell, Sweep, raise_problems
from triggerctl.sweep.record import new_record, write_record
from triggerctl.training.decision import Action
from triggerctl.training.settle import settle_skipped


class Screen(Protocol):
    """Who shows a sweep."""

    def began(self, planned: PlannedCell) -> None:
        """A worker has begun with a cell."""

    def ended(self, planned: PlannedCell, outcome: CellOutcome) -> None:
        """A cell was dealt with."""

    def note(self, text: str) -> None:
        """A line for the user."""

    def tick(self) -> None:
        """Some time has passed: a moment to look at what the runs say."""


def run_sweep(
    sweep: Sweep,
    launcher: Launcher,
    settings: RunSettings,
    *,
    screen: Screen,
    stop: threading.Event,
    fail_fast: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[CellOutcome | None]:
    """Have trained what is missing, failed or interrupted, and keep the sweep's record; returns what became
    of each planned cell, None where it was not reached.

    Goes on past a failed run unless `fail_fast`, which sets `stop`. Raises InputError, before anything is
    written, that holds the problems of all cells that can't be trained, and when the experiment's folder
    can't be written."""
    to_train = [planned for planned in sweep.planned if planned.is_to_train]
    with launcher:
        jobs = _checked(sweep, launcher, settings, stop) if to_train else {}
        account = _Account(sweep, screen, now(), stop_at_failure=stop if fail_fast else None)
        for planned in to_train:
            _write_config(planned)
        for planned in sweep.planned:
            if not planned.is_to_train:
                account.end(_untrained(sweep, planned))
        account.keep()
        if to_train:
            launcher.launch(
                [jobs[planned.hash] for planned in to_train],
                settings,
                began=account.begin,
                ended=account.end,
                note=screen.note,
                tick=screen.tick,
                stop=stop,
            )
        account.keep(finished=now())
    if to_train and settings.cache:
        clear_cache_leavings()
        trim_cache()
    return account.outcomes()


class _Account:
    """What becomes of each cell, told to the screen and kept in the sweep's record.

    stop_at_failure: set at the first run that fails, where there is one to set."""

    def __init__(
        self, sweep: Sweep, screen: Screen, started: datetime, *, stop_at_failure: threading.Event | None
    ) -> None:
        self._sweep = sweep
        self._screen = screen
        self._started = started
        self._stop_at_failure = stop_at_failure
        self._record = new_record(sweep.folder.sweeps, started)
        self._by_folder = {planned.folder.path: planned for planned in sweep.planned}
        self._outcomes: dict[Path, CellOutcome] = {}
        self._is_kept = True

    def begin(self, job: CellJob) -> None:
        """A worker has begun with a cell."""
        self._screen.began(self._by_folder[job.folder.path])

    def end(self, outcome: CellOutcome) -> None:
        """A cell was dealt with."""
        planned = self._by_folder[outcome.folder.path]
        self._outcomes[outcome.folder.path] = outcome
        if planned.is_to_train:
            self.keep()
        self._screen.ended(planned, outcome)
        if self._stop_at_failure is not None and outcome.outcome is Outcome.FAILED:
            self._stop_at_failure.set()

    def keep(self, *, finished: datetime | None = None) -> None:
        """Write the record as things stand."""
        sweep = self._sweep
        try:
            write_record(
                self._record,
                command=sweep.command,
                seeds=sweep.seeds,
                strategies=sweep.strategies,
                parameters={parameter.key: parameter.values for parameter in sweep.parameters},
                started=self._started,
                finished=finished,
                cells=[_recorded(sweep, p, self._outcomes.get(p.folder.path)) for p in sweep.planned],
            )
            self._is_kept = True
        except TriggerctlError as error:
            # A disk that is full now need not be when the next run ends.
            if self._is_kept:
                self._screen.note(f"the sweep's record is behind: {error}")
            self._is_kept = False

    def outcomes(self) -> list[CellOutcome | None]:
        """Of each planned cell, None where it was not reached."""
        return [self._outcomes.get(planned.folder.path) for planned in self._sweep.planned]


def job_of(planned: PlannedCell, *, memory_bytes: int | None = None) -> CellJob:
    """What a worker is given of a cell."""
    return CellJob(planned.folder, planned.loaded, planned.hash, memory_bytes)


def _readable(planned: PlannedCell) -> CellJob:
    return CellJob(planned.folder, planned.readable, planned.hash)


def _checked(
    sweep: Sweep, launcher: Launcher, settings: RunSettings, stop: threading.Event
) -> dict[str, CellJob]:
    """The jobs of all cells that are runs of their own, by hash. Finished ones are looked at too, since how
    the machine is shared goes by the whole grid; what is wrong with them is of no interest."""
    own = [planned for planned in sweep.planned if planned.same_as is None]
    found = launcher.check([_readable(planned) for planned in own], settings, stop=stop)
    problems: list[Problem] = []
    for planned in own:
        of_it = found.problems.get(planned.hash, ()) if planned.is_to_train else ()
        problems += [problem for problem in of_it if problem not in problems]
    raise_problems(problems)
    return {p.hash: job_of(p, memory_bytes=found.memory.get(p.hash)) for p in own}


def _untrained(sweep: Sweep, planned: PlannedCell) -> CellOutcome:
    if planned.same_as is not None:
        why = f"differs from {sweep.name(planned.same_as)} only in keys that its strategy doesn't read"
        return CellOutcome(planned.folder, Outcome.SAME, why)
    if planned.action is Action.BLOCKED:
        return CellOutcome(planned.folder, Outcome.KEPT, planned.reason)
    settle_skipped(planned)
    return CellOutcome(planned.folder, Outcome.SKIPPED, planned.reason, results=planned.finished)


def _write_config(planned: PlannedCell) -> None:
    """Write a cell's config.json where it is not there or does not say what the cell is now."""
    values = apply_overrides(planned.loaded.given, planned.cell.overrides)
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    path = planned.folder.config
    if path.is_file():
        with disk_errors(path, "read"):
            if disk.read_bytes(path) == text.encode():
                return
    make_folder(path.parent)
    write_text_atomic(path, text)


def _recorded(sweep: Sweep, planned: PlannedCell, ended: CellOutcome | None) -> dict[str, Any]:
    return {
        "folder": sweep.name(planned.cell),
        "strategy": planned.loaded.config.proxy_strategy,
        "seed": planned.cell.seed,
        "hash": planned.hash,
        "outcome": ended.outcome.value if ended is not None else None,
        "reason": ended.reason if ended is not None else planned.reason,
        "results": ended.results.name if ended is not None and ended.results is not None else None,
        "seconds": round(ended.seconds, 3) if ended is not None else None,
    }
