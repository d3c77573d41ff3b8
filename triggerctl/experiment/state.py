"""`state.json`: where a run stands, written whole at every change, and what may be believed of it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from triggerctl import disk
from triggerctl.errors import InputError, TriggerctlError
from triggerctl.experiment.atomic import disk_errors, write_json_atomic
from triggerctl.experiment.claim import HEARTBEAT_SECONDS, STALE_SECONDS, holder_of
from triggerctl.experiment.process import ProcessIdentity, is_alive, is_here

LATELY_SECONDS = 3 * HEARTBEAT_SECONDS
"""A state that another host wrote so lately is believed: its claim may not be seen from here yet."""

Status = Literal["pending", "running", "done", "failed", "interrupted"]
ShownStatus = Literal["pending", "running", "done", "failed", "interrupted", "stale"]
FolderName = Annotated[str, Field(pattern=r"^\w[\w.-]{0,99}$")]
"""The name of a folder beside others: what a file says of itself must not lead anywhere else."""
LOG_LINES = 3
"""Of a failed run's log, what is shown with its error: as many of the last lines as often tell why."""


class Progress(BaseModel):
    """The last numbers a running run told, for those who watch it. Losses in nats."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    phase: str = "main"
    loss: float | None = None
    rates: dict[str, float | None] = Field(default_factory=dict)
    tokens_per_second: float | None = None
    seconds_left: float | None = None


class RunState(BaseModel):
    """What `state.json` says. `epoch` and `step` count what is done, `epochs` and `steps` what is planned;
    `results` is the name of the results folder that the run writes or wrote; times carry their zone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: Status = "pending"
    hash: str | None = None
    strategy: str | None = None
    seed: int | None = None
    results: FolderName | None = None
    epoch: float = 0.0
    epochs: float | None = None
    step: int = 0
    steps: int | None = None
    host: str | None = None
    namespace: str = ""
    pid: int | None = None
    process_start: str | None = None
    heartbeat: AwareDatetime | None = None
    started: AwareDatetime | None = None
    finished: AwareDatetime | None = None
    error: str | None = None
    progress: Progress = Field(default_factory=Progress)

    @property
    def process(self) -> ProcessIdentity | None:
        """Who wrote this state, as far as it says."""
        if self.host is None or self.pid is None or self.process_start is None:
            return None
        return ProcessIdentity(
            host=self.host, namespace=self.namespace, pid=self.pid, start=self.process_start
        )

    def of(self, process: ProcessIdentity) -> RunState:
        """The same state, written by this process."""
        return self.model_copy(
            update={
                "host": process.host,
                "namespace": process.namespace,
                "pid": process.pid,
                "process_start": process.start,
            }
        )


def write_state(path: Path, state: RunState) -> None:
    """Write `state.json`; raises InputError where the folder can't be written."""
    write_json_atomic(path, state.model_dump(mode="json"))


def read_state(path: Path) -> RunState | None:
    """None when there is no such file. Raises InputError for one that is not a state."""
    try:
        with disk_errors(path, "read"):
            content = disk.read_bytes(path)
    except InputError:
        if not path.exists():
            return None
        raise
    return parse_state(content, path)


def parse_state(content: bytes, path: Path) -> RunState:
    """What a state.json says. Raises InputError, naming the path, where that is no state."""
    try:
        return RunState.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            "state.json is damaged",
            where=f"{path}, {'.'.join(map(str, first['loc']))}" if first["loc"] else str(path),
            why=first["msg"],
            mend="remove the file; finished results and checkpoints are found without it",
        ) from error


def effective_status(
    state: RunState, *, now: datetime, lock_heartbeat: datetime | None = None
) -> ShownStatus:
    """What to show for a state: `stale` for one that says running though its process on this host is gone or,
    from another host, though neither it nor its claim gave a sign of life for a minute."""
    if state.status != "running":
        return state.status
    process = state.process
    if process is not None and is_here(process):
        return "running" if is_alive(process) else "stale"
    signs = [sign for sign in (state.heartbeat, lock_heartbeat) if sign is not None]
    if signs and (now - max(signs)).total_seconds() <= STALE_SECONDS:
        return "running"
    return "stale"


def run_status(folder: Path) -> tuple[RunState, ShownStatus]:
    """The state of a run folder and what to show for it; a folder without `state.json` is pending, and a run
    that died after it wrote its results is done all the same."""
    state = read_state(folder / "state.json")
    if state is None:
        return RunState(), "pending"
    return state, shown_status(folder, state)


def shown_status(folder: Path, state: RunState) -> ShownStatus:
    """What to show for the state of a run folder; of one that says running, its claim is looked at too.

    Who runs holds the claim. A worker process lives on after a run, so that a state which says running though
    nobody holds the claim is stale (from another host, once it is some seconds old): the disk had no room for
    what became of the run."""
    if state.status != "running":
        return state.status
    holder = holder_of(folder)
    sign = datetime.fromtimestamp(holder.heartbeat, UTC) if holder else None
    now = datetime.now(UTC)
    shown = effective_status(state, now=now, lock_heartbeat=sign)
    process = state.process
    here = process is not None and is_here(process)
    silent = state.heartbeat is not None and (now - state.heartbeat).total_seconds() > LATELY_SECONDS
    if shown == "running" and (here or silent) and (holder is None or holder.is_given_back):
        # It may have ended between the two looks.
        again = read_state(folder / "state.json")
        if again is not None and again.status != "running":
            return again.status
        shown = "stale"
    if shown == "stale" and state.results and (folder / "results" / state.results / "results.json").is_file():
        return "done"
    return shown


def last_lines(log: Path, lines: int) -> list[str]:
    """What a log ends with, for people; why it can't be read, where that is so."""
    try:
        return _tail(log, lines)
    except (TriggerctlError, OSError) as error:
        return str(error).splitlines()[:1]


def _tail(path: Path, lines: int, *, at_most: int = 65536) -> list[str]:
    """The last lines of a text file, from its last `at_most` bytes; none when it is not there."""
    if not path.exists() or lines <= 0:
        return []
    with disk_errors(path, "read"), disk.open_to_read(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - at_most))
        content = file.read()
    found = content.decode(errors="replace").splitlines()
    if size > at_most and len(found) > 1:
        found = found[1:]
    return found[-lines:]
