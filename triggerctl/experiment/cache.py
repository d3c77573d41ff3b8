"""Where downloads and reusable computations live: one folder, named by content, safe to delete at any
time."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from pathlib import Path

import platformdirs

from triggerctl.experiment.atomic import clear_unfinished_writes, disk_errors
from triggerctl.experiment.claim import clear_stale_claims

CACHE_LIMIT = 20 * 1024**3
_IN_USE_SECONDS = 3600.0


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
        os.utime(entry)


def clear_cache_leavings() -> None:
    """Remove what processes that were killed left in the cache: half-written entries, and their claims."""
    root = cache_root()
    for kind in root.iterdir() if root.is_dir() else ():
        if kind.is_dir():
            clear_unfinished_writes(kind)
            clear_stale_claims(kind)


def trim_cache(limit: int = CACHE_LIMIT) -> list[str]:
    """Remove the entries that were not used for longest until the cache holds at most `limit` bytes; return
    what went, as `<kind>/<name>`. Entries used within the last hour stay: a run may be about to read them."""
    root = cache_root()
    if not root.is_dir():
        return []
    entries = []
    for path in root.glob("*/*"):
        with contextlib.suppress(FileNotFoundError):
            entries.append((path.stat().st_mtime, _size(path), path))
    total = sum(size for _, size, _ in entries)
    removed = []
    for used, size, path in sorted(entries):
        if total <= limit or time.time() - used < _IN_USE_SECONDS:
            break
        with disk_errors(path, "remove"):
            _remove(path)
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
        entry.rename(doomed)
        shutil.rmtree(doomed)
    else:
        entry.unlink(missing_ok=True)
