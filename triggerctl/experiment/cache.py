"""Where downloads and reusable computations live: one folder, named by content, safe to delete at any
time."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from triggerctl import disk
from triggerctl.errors import InputError, TriggerctlError
from triggerctl.experiment.atomic import atomic_file, clear_unfinished_writes, make_folder
from triggerctl.experiment.claim import clear_stale_claims

CACHE_LIMIT = 20 * 1024**3
LIMIT_VARIABLE = "TRIGGERCTL_CACHE_LIMIT"
LARGEST_SHARE = 4
"""An entry that would fill more than this part (1/4) of the limit is not kept: it would drive out all the
rest."""
_IN_USE_SECONDS = 3600.0
_LOCK = ".lock"
_UNITS = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}
_log = logging.getLogger("triggerctl.cache")

T = TypeVar("T")


def cache_root() -> Path:
    """The cache folder: `TRIGGERCTL_CACHE`, else the user's own cache folder. It may not exist yet."""
    chosen = os.environ.get("TRIGGERCTL_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("triggerctl", appauthor=False))


def mark_used(entry: Path) -> None:
    """Note that a cache entry (`<cache>/<kind>/<name>`, a file or a folder) was used just now, so that it is
    among the last to go. A cache that can't be written is no reason to stop."""
    with contextlib.suppress(OSError):
        disk.mark(entry)


def cache_limit() -> int:
    """How many bytes the cache may hold: `TRIGGERCTL_CACHE_LIMIT`, e.g. "50 GiB" or "800 MB", else 20 GiB.

    Raises InputError where that is no size."""
    asked = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not asked:
        return CACHE_LIMIT
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", asked.lower())
    unit = _UNITS.get(found[2]) if found else None
    if found is None or unit is None:
        raise InputError(
            f"{asked!r} is not a size",
            where=f"the environment variable {LIMIT_VARIABLE}",
            why="a number and a unit are expected: B, KB, MB, GB, TB, KiB, MiB, GiB or TiB",
            mend=f'set it to e.g. "20 GiB", or unset {LIMIT_VARIABLE}',
        )
    return int(float(found[1]) * unit)


def entry_name(parts: Mapping[str, Any]) -> str:
    """The name of what these plain values decide: the same for equal values, whatever the order of keys."""
    plain = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()[:32]


class Cache:
    """What one run finds in the cache and leaves there.

    An entry is `<kind>/<name>`, its name made of all that decides its content (`entry_name`), so that reading
    it is the same as computing it. With `enabled` false (`--no-cache`) nothing is found and nothing is kept.
    A cache that can't be read or written costs time, never a run. `used`: the entries read or written so far.
    Raises InputError where `TRIGGERCTL_CACHE_LIMIT` is no size."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.used: list[str] = []
        self._limit = cache_limit()
        self._wrote = False

    def read(self, entry: str, reader: Callable[[Path], T]) -> T | None:
        """What `reader` makes of an entry's file; None where there is none.

        A file that it can't make sense of, by whatever it raises, is removed: a damaged entry is none."""
        path = cache_root() / entry
        if not self.enabled or not path.is_file():
            return None
        try:
            found = reader(path)
        except FileNotFoundError:
            return None  # another process has just trimmed it
        except Exception as error:  # noqa: BLE001  whatever a damaged file makes a reader raise
            _log.info("cache entry %s can't be read and is removed: %s", entry, error)
            with contextlib.suppress(OSError):
                disk.remove(path)
            return None
        mark_used(path)
        self._name(entry)
        return found

    def keep(self, entry: str, writer: Callable[[Path], None], *, size: int = 0) -> None:
        """Have `writer` write an entry's file, unless its `size` in bytes would take too much of the
        limit."""
        if not self.enabled or size * LARGEST_SHARE > self._limit:
            return
        path = cache_root() / entry
        try:
            make_folder(path.parent)
            # No sync: a power cut may leave a torn file, and reading checks every entry.
            with atomic_file(path, lasting=False) as temporary:
                writer(temporary)
        except TriggerctlError as error:
            _log.info("cache entry %s can't be kept: %s", entry, error)
            return
        self._wrote = True
        self._name(entry)

    def obtain(
        self,
        entry: str,
        compute: Callable[[], T],
        *,
        reader: Callable[[Path], T],
        writer: Callable[[Path, T], None],
        size: Callable[[T], int] = lambda value: 0,
    ) -> T:
        """An entry's content, read or else computed and kept."""
        found = self.read(entry, reader)
        if found is None:
            found = compute()
            content = found
            self.keep(entry, lambda path: writer(path, content), size=size(content))
        return found

    def trim(self) -> None:
        """Bring the cache back under its limit if this run has added to it."""
        if self._wrote:
            trim_cache(self._limit)

    def _name(self, entry: str) -> None:
        if entry not in self.used:
            self.used.append(entry)


def read_document(path: Path) -> Any:
    """The JSON of a file that `write_document` wrote; numbers come back to the last bit, NaN too. Raises
    where the file is damaged."""
    return json.loads(gzip.decompress(disk.read_bytes(path)))


def write_document(path: Path, content: object) -> None:
    """Write plain data as JSON under gzip's checksum."""
    disk.write_bytes(path, gzip.compress(json.dumps(content).encode(), compresslevel=1, mtime=0))


def clear_cache_leavings() -> None:
    """Remove what processes that were killed left in the cache: half-written entries, and their claims."""
    root = cache_root()
    for kind in root.iterdir() if root.is_dir() else ():
        if kind.is_dir():
            clear_unfinished_writes(kind)
            clear_stale_claims(kind)


def trim_cache(limit: int | None = None) -> list[str]:
    """Remove the entries that were not used for longest until the cache holds at most `limit` bytes (default
    `cache_limit()`); return what went, as `<kind>/<name>`. Entries used within the last hour stay: a run may
    be about to read them. What can't be removed stays too."""
    limit = cache_limit() if limit is None else limit
    root = cache_root()
    entries = []
    for path in root.glob("*/*"):
        with contextlib.suppress(FileNotFoundError):
            if path.suffix != _LOCK:  # weighs nothing, and may be held
                entries.append((path.stat().st_mtime, _size(path), path))
    total = sum(size for _, size, _ in entries)
    removed = []
    for used, size, path in sorted(entries):
        if total <= limit or time.time() - used < _IN_USE_SECONDS:
            break
        try:
            _remove(path)
        except FileNotFoundError:
            pass  # another process was faster
        except OSError as error:
            _log.info("%s can't be removed from the cache: %s", path, error)
            continue
        total -= size
        removed.append(path.relative_to(root).as_posix())
    return removed


def _size(entry: Path) -> int:
    if entry.is_dir():
        return sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())
    return entry.stat().st_size


def _remove(entry: Path) -> None:
    if entry.is_dir():
        # Renamed first: a folder that is only half removed must not be found by its name.
        doomed = entry.with_name(f".{entry.name}.{secrets.token_hex(4)}")
        disk.rename(entry, doomed)
        disk.remove_folder(doomed)
    else:
        disk.remove(entry)
