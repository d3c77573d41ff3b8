"""The jobs of an experiment in Slurm: what was submitted, which of them are queued, and what became of each
cell, by its state, its job's answer and its job's output."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from triggerctl import disk
from triggerctl.errors import RunError, TriggerctlError
from triggerctl.experiment.atomic import make_folder, write_json_atomic
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.state import RunState, last_lines, read_state
from triggerctl.sweep.cell import CellJob, CellOutcome, Outcome


@dataclass(frozen=True, slots=True)
class Submitted:
    """A cell's job. `id` as Slurm writes it: `12_3`, or `12` where it was alone; `record`: the file that says
    so, written right after it was submitted."""

    id: str
    record: Path


def job_name(folder: ExperimentFolder) -> str:
    """How the jobs of an experiment are called in the queue."""
    return f"triggerctl-{folder.name}"


def make_folder_for_jobs(folder: ExperimentFolder) -> Path:
    """Where an experiment's jobs are written down and write; raises InputError if it can't be made."""
    path = folder.sweeps / "slurm"
    make_folder(path)
    return path


def cell_key(experiment: ExperimentFolder, job: CellJob) -> tuple[str, str]:
    """By what a cell is found among those that were submitted: its folder and its hash."""
    return job.folder.path.relative_to(experiment.path).as_posix(), job.hash


def write_record(
    folder: Path, experiment: ExperimentFolder, jobs: Mapping[str, CellJob]
) -> dict[ExperimentFolder, Submitted]:
    """Write down an array that was submitted just now: its jobs by their ids, the first one first."""
    record = folder / f"{next(iter(jobs)).partition('_')[0]}.json"
    keys = {each: cell_key(experiment, job) for each, job in jobs.items()}
    write_json_atomic(
        record,
        {
            "submitted": datetime.now(UTC).isoformat(timespec="seconds"),
            "jobs": {each: {"folder": name, "hash": run_hash} for each, (name, run_hash) in keys.items()},
        },
    )
    return {job.folder: Submitted(each, record) for each, job in jobs.items()}


def read_records(folder: Path) -> dict[tuple[str, str], Submitted]:
    """What was submitted, by the cell's folder and hash; of two jobs of a cell the later one."""
    found: dict[tuple[str, str], Submitted] = {}
    records = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in records:
        try:
            for each, cell in json.loads(disk.read_bytes(path))["jobs"].items():
                found[cell["folder"], cell["hash"]] = Submitted(each, path)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # not one of ours
    return found


def queued_in_slurm(ids: Collection[str], name: str) -> set[str] | None:
    """Which of these jobs of this name Slurm has in its queue, waiting or running; None where it can't be
    asked."""
    arrays = sorted({each.partition("_")[0] for each in ids})
    try:
        asked = subprocess.run(
            ["squeue", "--noheader", "--array", "--format=%i|%j", f"--jobs={','.join(arrays)}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if asked.returncode != 0 and "Invalid job id" not in asked.stderr:
        return None
    lines = [line.strip().partition("|") for line in asked.stdout.splitlines()]
    # A number is used again after a while, for anybody's job: the name has to fit too.
    return {each for each, _, called in lines if called == name} & set(ids)


def outcome_of(
    job: CellJob, state: RunState | None, submitted: Submitted, folder: Path, *, gone: bool
) -> CellOutcome | None:
    """What became of a cell; None while it is not decided.

    state: what the run has said since its job was submitted.
    gone:  whether the job has left the queue."""
    if state is not None and state.status == "done":
        results = job.folder.results / state.results if state.results else None
        return CellOutcome(job.folder, Outcome.DONE, f"job {submitted.id}", _seconds(state), results)
    if not gone:
        return None
    returned = _returned(folder, submitted)
    if returned is not None:
        return replace(returned, folder=job.folder)
    if state is not None and state.status == "failed":
        error = RunError(
            state.error or "the run failed", where=str(job.folder.path), mend=f"see {job.folder.log}"
        )
        return CellOutcome(job.folder, Outcome.FAILED, str(error), _seconds(state), error=error)
    if state is not None:
        why = f"job {submitted.id} was ended; the same command goes on from the last checkpoint"
        return CellOutcome(job.folder, Outcome.INTERRUPTED, why)
    said = last_lines(_error_log(folder, submitted), 1)
    if not said:
        return CellOutcome(job.folder, Outcome.INTERRUPTED, f"job {submitted.id} ended before it began")
    error = RunError(
        f"job {submitted.id} ended before the run began",
        where=str(job.folder.path),
        why=said[0],
        mend=f"see {_error_log(folder, submitted)}",
    )
    return CellOutcome(job.folder, Outcome.FAILED, str(error), error=error)


def state_since(job: CellJob, submitted: Submitted) -> RunState | None:
    """The run's state if it was written after the job was submitted, by the clock of the file system."""
    try:
        if job.folder.state.stat().st_mtime_ns < submitted.record.stat().st_mtime_ns:
            return None
        state = read_state(job.folder.state)
    except (OSError, TriggerctlError):
        return None
    return state if state is not None and state.hash == job.hash else None


def _returned(folder: Path, submitted: Submitted) -> CellOutcome | None:
    """What the job's function returned; None where it did not come to that."""
    from submitit.core.utils import JobPaths, pickle_load

    path = JobPaths(folder, job_id=submitted.id, task_id=0).result_pickle
    if not path.is_file():
        return None
    kind, value = pickle_load(path)
    return value if kind == "success" and isinstance(value, CellOutcome) else None


def _error_log(folder: Path, submitted: Submitted) -> Path:
    return folder / f"{submitted.id}_0_log.err"


def _seconds(state: RunState) -> float:
    if state.started is None or state.finished is None:
        return 0.0
    return (state.finished - state.started).total_seconds()
