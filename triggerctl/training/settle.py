"""The last things of a run: what it does once results.json stands, and what its folder says where it failed
before it could say anything. A run that was killed just before is settled by whoever comes next. Imports no
torch."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from triggerctl import disk
from triggerctl.config.models import ExperimentConfig
from triggerctl.errors import TriggerctlError
from triggerctl.experiment.atomic import clear_unfinished_writes, drop_folder, unfinished_writes
from triggerctl.experiment.claim import LOCK_NAME, claim
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.process import this_process
from triggerctl.experiment.state import RunState, read_state, write_state


class Planned(Protocol):
    """What settling needs to know of a run that was planned. `finished`: its finished results, if any."""

    @property
    def folder(self) -> ExperimentFolder: ...
    @property
    def hash(self) -> str: ...
    @property
    def config(self) -> ExperimentConfig: ...
    @property
    def finished(self) -> Path | None: ...


def settle(plan: Planned, results: Path) -> None:
    """Make the folder say that this run is done, `results` being its finished results. Only for who holds the
    claim."""
    drop_checkpoints(plan, results)
    for folder in (plan.folder.path, results):
        clear_unfinished_writes(folder)
    state = read_state(plan.folder.state)
    if state is not None and _is_behind(state, results):
        done = {"status": "done", "error": None, "finished": datetime.now(UTC)}
        write_state(plan.folder.state, state.model_copy(update=done))


def settle_skipped(plan: Planned) -> None:
    """Settle a run that is skipped as finished, unless another process works in its folder or it can't be
    written: its results stand all the same."""
    with contextlib.suppress(TriggerctlError):
        if plan.finished is not None and _is_unsettled(plan, plan.finished):
            with claim(plan.folder.path):
                settle(plan, plan.finished)


def settle_failed(
    folder: ExperimentFolder, run_hash: str, error: str, *, strategy: str, seed: int, since: datetime
) -> None:
    """Make the folder say that this run failed, for those who come later: a model that can't be loaded, or
    the death of a process, leaves no state of its own. Where the run has said since then that it failed, or
    is done, or another process works in the folder, or that can't be written, nothing is changed."""
    with contextlib.suppress(TriggerctlError), claim(folder.path):
        state = read_state(folder.state)
        if state is None or state.hash != run_hash:
            state = RunState(hash=run_hash, strategy=strategy, seed=seed)
        elif state.status == "done" or (state.status == "failed" and _ended_since(state, since)):
            return
        failed = {"status": "failed", "error": error, "finished": datetime.now(UTC)}
        write_state(folder.state, state.model_copy(update=failed).of(this_process()))


def _ended_since(state: RunState, since: datetime) -> bool:
    return state.finished is not None and state.finished >= since


def _is_unsettled(plan: Planned, results: Path) -> bool:
    folder = plan.folder
    if any(folder.path.glob(f"{LOCK_NAME}*")) or any(
        map(unfinished_writes, (folder.path, folder.checkpoints, results))
    ):
        return True
    if folder.checkpoint(plan.hash).is_dir():
        return True
    if folder.checkpoints.is_dir() and not any(folder.checkpoints.iterdir()):
        return True
    state = read_state(folder.state)
    return state is not None and _is_behind(state, results)


def _is_behind(state: RunState, results: Path) -> bool:
    return state.results == results.name and state.status != "done"


def drop_checkpoints(plan: Planned, results: Path) -> None:
    """Remove the run's checkpoints, or keep them with its results where that is asked for; another
    configuration's are not touched. What the disk refuses is left to who comes next: the results stand."""
    own = plan.folder.checkpoint(plan.hash)
    kept = results / "checkpoints"
    with contextlib.suppress(OSError):
        if plan.config.finetune_config.save_checkpoints_locally and own.is_dir() and not kept.exists():
            disk.rename(own, kept)
        drop_folder(own)
        clear_unfinished_writes(plan.folder.checkpoints)
        if plan.folder.checkpoints.is_dir() and not any(plan.folder.checkpoints.iterdir()):
            disk.remove_empty_folder(plan.folder.checkpoints)
