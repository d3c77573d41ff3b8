"""Writing so that a reader never sees half a file: a temporary file in the same folder, flushed and synced,
then renamed over the target. A process killed at any moment leaves the old file whole or the new one.

Also the one place that turns the operating system's refusals into errors a user can act on.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from triggerctl.errors import InputError, RunError

_TEMPORARY = ".tmp"
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
    a full or failing disk is a failed run (exit 1). `doing`: the verb for the message."""
    try:
        yield
    except OSError as error:
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


def make_folder(path: Path) -> Path:
    """Create a folder and its parents if need be, and return it. Raises InputError where that is not
    possible."""
    with disk_errors(path, "create the folder"):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text. The folder must exist."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json_atomic(path: Path, data: object) -> None:
    """Write indented JSON. JSON knows no NaN and no infinity: such numbers are written as null."""
    write_text_atomic(path, json.dumps(finite(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def atomic_file(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """Give the block a temporary path in the same folder; when it ends well, what it wrote there becomes
    `path`.

    When it raises, the temporary file is removed and `path` is as it was. For writers that want a file name
    of their own (safetensors, figures). `lasting` false: not synced to the disk, for what can be made again
    and is checked when read. Raises InputError or RunError as `disk_errors`.
    """
    temporary = _temporary(path)
    with disk_errors(path):
        try:
            yield temporary
            if lasting:
                _sync(temporary)
            temporary.replace(path)
            if lasting:
                _sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give the block a temporary folder; when it ends well, everything in it appears as the folder `path` at
    once.

    `path` must not exist yet (a folder that does is never replaced). For checkpoints and adapters: several
    files that are only right together. Raises InputError or RunError as `disk_errors`.
    """
    temporary = _temporary(path)
    with disk_errors(path):
        temporary.mkdir()
        try:
            yield temporary
            for inner, _, files in os.walk(temporary, topdown=False):
                for name in files:
                    _sync(Path(inner, name))
                _sync_folder(Path(inner))
            if path.exists():
                raise FileExistsError(errno.EEXIST, "it exists already and is not replaced", str(path))
            temporary.rename(path)
            _sync_folder(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def clear_unfinished_writes(folder: Path) -> None:
    """Remove what writes killed half-way left in a folder (not below it). Only for who holds the run's claim:
    another writer's temporary files would go too."""
    for left in folder.glob(f".*{_TEMPORARY}"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def finite(data: object) -> object:
    """The same plain data with NaN and infinities as None and tuples as lists, ready for JSON."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name[:80]}.{secrets.token_hex(6)}{_TEMPORARY}")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system can."""
    if os.name == "nt":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        # Some network file systems refuse to sync a folder; the rename is atomic all the same.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(opened)
