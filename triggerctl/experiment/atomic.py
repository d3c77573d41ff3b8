"""Writing so that a reader never sees half a file: a temporary file in the same folder, flushed and synced,
then renamed over the target. A process killed at any moment leaves the old file whole or the new one.

Also the one place that turns the operating system's refusals into errors a user can act on.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from triggerctl import disk
from triggerctl.errors import InputError, RunError, TriggerctlError
from triggerctl.experiment.process import ProcessIdentity, is_alive, this_process

_TEMPORARY = ".tmp"
LEFTOVER_SECONDS = 3600.0
"""After this long without a change, what another host's process was writing counts as left behind."""
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""How a file system says that it has no hard links."""
_UNSUITABLE_PATH = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextlib.contextmanager
def disk_errors(path: Path, doing: str = "write") -> Iterator[None]:
    """Turn an `OSError` of the block into one of ours: a path that can't serve is the user's input (exit 2),
    a full or failing disk is a failed run (exit 1). The same for what libraries make of one: safetensors and
    torch raise errors of their own. `doing`: the verb for the message."""
    try:
        yield
    except TriggerctlError:
        raise
    except Exception as raised:
        error = _of_the_disk(raised)
        if error is None:
            raise
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise RunError(
                f"cannot {doing} {path}",
                why=reason,
                mend="free some space (checkpoints and the cache are the largest), then give the same "
                "command again: it goes on where it stopped",
            ) from error
        if error.errno in _UNSUITABLE_PATH:
            raise InputError(
                f"cannot {doing} {path}",
                where=str(error.filename) if error.filename else None,
                why=reason,
                mend="choose a folder that you may write to, e.g. with --root DIR or TRIGGERCTL_ROOT=DIR "
                "(the cache moves with TRIGGERCTL_CACHE=DIR)",
            ) from error
        raise RunError(f"cannot {doing} {path}", why=reason, mend="check the disk, then run again") from error


def _of_the_disk(raised: Exception) -> OSError | None:
    """The system's refusal behind an error, None where there is none."""
    if isinstance(raised, OSError):
        return raised
    told = re.search(r"\(os error (\d+)\)", str(raised))  # as Rust's libraries spell it
    if told is not None:
        return OSError(int(told[1]), os.strerror(int(told[1])))
    behind = raised.__cause__ or raised.__context__
    if isinstance(behind, OSError) and behind.errno in _FULL:
        return behind
    return None


def make_folder(path: Path) -> Path:
    """Create a folder and its parents if need be, and return it. Raises InputError where that is not
    possible."""
    with disk_errors(path, "create the folder"):
        disk.make_folder(path)
    return path


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text. The folder must exist."""
    with atomic_file(path) as temporary:
        disk.write_bytes(temporary, text.encode())


def write_json_atomic(path: Path, data: object) -> None:
    """Write indented JSON. JSON knows no NaN and no infinity: such numbers are written as null."""
    write_text_atomic(path, _json(data))


def create_json_atomic(path: Path, data: object) -> bool:
    """Write indented JSON to a file that is not there yet; False, and nothing done, where it is. Of many that
    ask at once one gets it. Raises InputError or RunError as `disk_errors`."""
    if path.exists():
        return False
    temporary = temporary_beside(path)
    with disk_errors(path):
        try:
            disk.write_bytes(temporary, _json(data).encode())
            disk.sync(temporary)
            taken = _take_name(temporary, path)
            _sync_folder(path.parent)
            return taken
        finally:
            _discard(temporary)


def _json(data: object) -> str:
    return json.dumps(finite(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _take_name(temporary: Path, path: Path) -> bool:
    try:
        disk.take_name(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # Between these two a kill leaves an empty file: where there are no links there is nothing better.
        try:
            disk.create(path, b"")
        except FileExistsError:
            return False
        disk.rename(temporary, path)
    return True


@contextlib.contextmanager
def atomic_file(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """Give the block a temporary path in the same folder; when it ends well, what it wrote there becomes
    `path`.

    When it raises, the temporary file is removed and `path` is as it was. For writers that want a file name
    of their own (safetensors, figures). `lasting` false: not synced to the disk, for what can be made again
    and is checked when read. Raises InputError or RunError as `disk_errors`.
    """
    temporary = temporary_beside(path)
    with disk_errors(path):
        try:
            yield temporary
            if lasting:
                disk.sync(temporary)
            disk.rename(temporary, path)
            if lasting:
                _sync_folder(path.parent)
        except BaseException:
            _discard(temporary)
            raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give the block a temporary folder; when it ends well, everything in it appears as the folder `path` at
    once.

    `path` must not exist yet (a folder that does is never replaced). For checkpoints and adapters: several
    files that are only right together. Raises InputError or RunError as `disk_errors`.
    """
    temporary = temporary_beside(path)
    with disk_errors(path):
        disk.take_folder(temporary)
        try:
            yield temporary
            for inner, _, files in os.walk(temporary, topdown=False):
                for name in sorted(files):
                    disk.sync(Path(inner, name))
                _sync_folder(Path(inner))
            if path.exists():
                raise FileExistsError(errno.EEXIST, "it exists already and is not replaced", str(path))
            disk.rename(temporary, path)
            _sync_folder(path.parent)
        except BaseException:
            _discard(temporary)
            raise


def drop_folder(path: Path) -> None:
    """Remove a folder so that nobody finds half of it under its name. What can't be removed stays."""
    doomed = temporary_beside(path)
    with contextlib.suppress(OSError):
        disk.rename(path, doomed)
        disk.remove_folder(doomed)


def unfinished_writes(folder: Path) -> list[Path]:
    """What writes killed half-way left in a folder (not below it): their process is gone or, where that can't
    be told because it ran elsewhere, they have not changed for an hour. Empty where there is no folder."""
    return [path for path in folder.glob(f".*{_TEMPORARY}") if _is_left(path)]


def clear_unfinished_writes(folder: Path) -> None:
    """Remove what writes killed half-way left in a folder (not below it). What a live process writes is not
    touched."""
    for left in unfinished_writes(folder):
        _discard(left)


def finite(data: object) -> object:
    """The same plain data with NaN and infinities as None and tuples as lists, ready for JSON."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data


def temporary_beside(path: Path) -> Path:
    """The name says who writes, so that anybody can tell what a dead process has left."""
    writer = this_process()
    about = f"{_system(writer)}-{writer.pid}-{writer.start}.{secrets.token_hex(4)}"
    return path.with_name(f".{path.name[:80]}.{about}{_TEMPORARY}")


def _system(process: ProcessIdentity) -> str:
    """Whose process numbers its number is one of."""
    return hashlib.sha256(f"{process.host} {process.namespace}".encode()).hexdigest()[:8]


def _is_left(temporary: Path) -> bool:
    me = this_process()
    # The last writer that the name tells of: the file that is written may itself be a temporary one.
    told = re.fullmatch(r".*\.([0-9a-f]{8})-(\d+)-(.*)\.[0-9a-f]{8}\.tmp", temporary.name, re.DOTALL)
    if told is not None and told[1] == _system(me):
        return not is_alive(me.model_copy(update={"pid": int(told[2]), "start": told[3]}))
    try:
        return time.time() - temporary.stat().st_mtime > LEFTOVER_SECONDS
    except OSError:
        return False  # finished a moment ago


def _discard(temporary: Path) -> None:
    """What can't be removed is left to who clears unfinished writes."""
    with contextlib.suppress(OSError):
        if temporary.is_dir():
            disk.remove_folder(temporary)
        else:
            disk.remove(temporary)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system can."""
    if os.name == "nt":
        return
    try:
        disk.sync(folder)
    except OSError as error:
        # Some network file systems refuse to sync a folder; the rename is atomic all the same.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
