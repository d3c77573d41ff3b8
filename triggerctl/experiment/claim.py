"""The claim on a run folder: whoever holds `.lock` is the only one who writes there, among any number of
processes and hosts that share the folder.

How it is exclusive without a lock server, on local and network file systems alike:

- Taking a free claim is one `link` of a finished file onto the name `.lock`: it fails if the name is taken,
  and a reader never sees a half-written claim.
- Every claim has a token of its own. Whoever *ends* claim T (its holder, or one who found it stale) first
  takes the guard `.lock.over.<T>`, a claim of the same kind, and looks again whether `.lock` still is T. Only
  one gets the guard, and without it nobody touches `.lock`, so a late-comer who read a stale claim cannot
  remove its successor.

A claim is stale at once when its process on this host is gone, and after 60 s without a heartbeat when it was
made on another host. The heartbeat is the file's modification time; its age is measured against a file just
written to the same folder, so that clocks of hosts need not agree. A holder that can't take its claim off,
since the guard finds no room on a full disk, sets that time to 0: given back, and stale at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from triggerctl import disk
from triggerctl.errors import BusyError, LostClaimError, TriggerctlError
from triggerctl.experiment.atomic import LEFTOVER_SECONDS, NO_LINKS, disk_errors, temporary_beside
from triggerctl.experiment.process import ProcessIdentity, is_alive, is_here, this_process

LOCK_NAME = ".lock"
HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
_GIVEN_BACK = 0

_log = logging.getLogger(__name__)


class Holder(BaseModel):
    """What a lock file says. `process` is None when it can't be read (a claim being written on a file system
    without links, or a damaged file); `heartbeat` is its modification time in seconds, by the file system's
    clock."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    token: str
    started: str = ""
    process: ProcessIdentity | None = None
    heartbeat: float = 0.0

    @property
    def is_given_back(self) -> bool:
        """Whether its holder is done with it, though it could not take it off."""
        return self.heartbeat == _GIVEN_BACK

    def is_stale(self, now: float) -> bool:
        """`now`: seconds, by the file system's clock."""
        if self.is_given_back:
            return True
        if self.process is not None and is_here(self.process):
            return not is_alive(self.process)
        return now - self.heartbeat > STALE_SECONDS


class Claim:
    """A claim that is held. Its heartbeat runs in a thread of its own; `lost` is set when another one took
    the claim over, which can only happen to a process that was out of touch for longer than a minute."""

    def __init__(self, lock: Path, token: str, heartbeat: float) -> None:
        self.lock = lock
        self.lost = threading.Event()
        self._token = token
        self._pid = os.getpid()
        self._period = heartbeat
        self._beaten = time.time()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claim-heartbeat", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise LostClaimError if the claim was lost. To be called before anything of lasting effect is
        written. A process that was out of touch looks anew before it believes that it still has its claim."""
        if not self.lost.is_set() and abs(time.time() - self._beaten) > 2 * self._period:
            self._beat_once()
        if self.lost.is_set():
            raise LostClaimError(
                "the claim on this run was taken over by another process",
                where=str(self.lock.parent),
                why=f"no heartbeat for more than {STALE_SECONDS:.0f} s (was the machine suspended?)",
                mend="let the other process finish; `triggerctl status` shows it",
            )

    def release(self) -> None:
        """Give the claim back. A forked child, which inherits this object but not the claim, does nothing."""
        if os.getpid() != self._pid or self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        try:
            with _ending(self.lock, self._token) as still_ours:
                if still_ours:
                    disk.remove(self.lock)
        except BusyError:
            pass  # another one is ending this very claim
        except OSError:
            _mark_given_back(self.lock, self._token)

    def _beat(self) -> None:
        while not self._stop.wait(self._period) and not self.lost.is_set():
            self._beat_once()

    def _beat_once(self) -> None:
        try:
            holder = _read(self.lock)
            if holder is None or holder.token != self._token:
                self.lost.set()
                return
            disk.mark(self.lock)
            self._beaten = time.time()
        except OSError as error:
            # A network file system may be out of reach for a while; whether the claim held will be seen then.
            _log.warning("heartbeat of %s failed: %s", self.lock, error)


@contextlib.contextmanager
def claim(folder: Path, *, name: str = LOCK_NAME, heartbeat: float = HEARTBEAT_SECONDS) -> Iterator[Claim]:
    """Hold the folder's claim for the length of the block, or that of one thing in it, called `name`.

    heartbeat: seconds between two signs of life.
    Raises BusyError, naming the holder, when another process has it; InputError when the folder can't be
    written.
    """
    lock = folder / name
    with disk_errors(folder, "claim"):
        token = _acquire(lock)
        _clear_leftovers(lock)
    held = Claim(lock, token, heartbeat)
    try:
        yield held
    finally:
        held.release()


def holder_of(folder: Path) -> Holder | None:
    """Who holds the folder's claim, stale or not; None when nobody does."""
    with disk_errors(folder, "read the claim on"):
        return _read(folder / LOCK_NAME)


def clear_stale_claims(folder: Path) -> None:
    """Take off the claims on things in a folder, `.<thing>.lock`, whose holders are gone."""
    for lock in folder.glob(".*.lock"):
        with contextlib.suppress(TriggerctlError, OSError):
            seen = _read(lock)
            if seen is not None and seen.is_stale(time.time()):
                with claim(folder, name=lock.name):
                    pass


def _acquire(lock: Path) -> str:
    """Make `lock` ours and return its token; BusyError when a live claim stands, OSError from the disk."""
    token = secrets.token_hex(8)
    # Its name says whose it is, so that one that was cut off is known as left behind.
    candidate = temporary_beside(lock)
    mine = Holder(
        token=token, started=datetime.now(UTC).isoformat(timespec="seconds"), process=this_process()
    )
    content = mine.model_dump_json(exclude={"heartbeat"})
    try:
        disk.create(candidate, content.encode())
        clock = candidate.stat().st_mtime
        while not _link(candidate, lock, content):
            seen = _read(lock)
            if seen is None:
                continue
            if not seen.is_stale(clock):
                raise _busy(lock, seen, clock)
            with _ending(lock, seen.token) as still_there:
                if still_there:
                    disk.rename(candidate, lock)
                    break
        return token
    finally:
        # Whatever becomes of it, a claim that was taken is ours, and given back by who takes it.
        with contextlib.suppress(OSError):
            disk.remove(candidate)


@contextlib.contextmanager
def _ending(lock: Path, token: str) -> Iterator[bool]:
    """The right to end claim `token` on `lock`, given to one at a time; yields whether `lock` still is that
    claim. BusyError when another one has that right. A guard whose owner died half-way is itself ended in the
    same way."""
    guard = lock.with_name(f"{lock.name}.over.{token}")
    guard_token = _acquire(guard)
    try:
        seen = _read(lock)
        yield seen is not None and seen.token == token
    finally:
        standing = _read(guard)
        if standing is not None and standing.token == guard_token:
            disk.remove(guard)


def _mark_given_back(lock: Path, token: str) -> None:
    """Takes no room. By the open file, so that another one's claim under that name is never marked."""
    with contextlib.suppress(OSError), disk.open_to_read(lock) as file:
        if _parsed(file.read(), os.fstat(file.fileno())).token == token:
            disk.mark(lock, (_GIVEN_BACK, _GIVEN_BACK), opened=file.fileno())


def _link(candidate: Path, lock: Path, content: str) -> bool:
    """Put the candidate under the name `lock` too; False if that name is taken."""
    try:
        disk.take_name(candidate, lock)
    except FileExistsError:
        # A network file system that repeats a request whose answer was lost reports its own link as taken.
        return candidate.stat().st_nlink > 1
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _create_where_links_are_missing(lock, content)
    return True


def _create_where_links_are_missing(lock: Path, content: str) -> bool:
    try:
        disk.create(lock, content.encode())
    except FileExistsError:
        return False
    return True


def _read(lock: Path) -> Holder | None:
    try:
        with disk.open_to_read(lock) as file:
            return _parsed(file.read(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return None


def _parsed(content: bytes, about: os.stat_result) -> Holder:
    try:
        return Holder.model_validate_json(content).model_copy(update={"heartbeat": about.st_mtime})
    except ValidationError:
        return Holder(token=f"unreadable-{about.st_mtime_ns}", heartbeat=about.st_mtime)


def _busy(lock: Path, holder: Holder, now: float) -> BusyError:
    process = holder.process
    if process is None:
        return BusyError(
            "another process is claiming this run",
            where=str(lock.parent),
            why=f"{lock.name} is there, but says nothing readable",
            mend=f"wait {STALE_SECONDS:.0f} s and try again",
        )
    age = max(0.0, now - holder.heartbeat)
    return BusyError(
        f"process {process.pid} on {process.host} is working on this run",
        where=str(lock.parent),
        why=f"it holds the claim since {holder.started}, last heartbeat {age:.0f} s ago",
        mend="let it finish (`triggerctl status --watch` follows it), or stop it; its claim ends with it",
    )


def _clear_leftovers(lock: Path) -> None:
    """Remove guards of processes that were killed while they tried: at once where the process is known to be
    gone, else after an hour, far longer than any live one needs. Candidates are cleared like any unfinished
    write. What can't be looked at or removed is left to the next holder.

    Only for the holder: once `lock` is ours, guards of earlier claims decide nothing any more."""
    for left in lock.parent.glob(f"{lock.name}.*"):
        with contextlib.suppress(OSError):
            holder = _read(left)
            if holder is None:
                continue
            process = holder.process
            gone = process is not None and is_here(process) and not is_alive(process)
            if gone or time.time() - holder.heartbeat > LEFTOVER_SECONDS:
                disk.remove(left)
