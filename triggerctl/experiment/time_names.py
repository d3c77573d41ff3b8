"""What is named by when it began: results folders and the records of sweeps."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from triggerctl import disk
from triggerctl.experiment.atomic import disk_errors, make_folder

_NAME = re.compile(r"(\d{8}_\d{6})(?:_(\d+))?")


def names_at(now: datetime) -> Iterator[str]:
    """Names for what begins at this time: `<YYYYmmdd_HHMMSS>`, then `_2` and on for where that is taken.

    In UTC, so that they sort by age wherever their hosts are, and on the night that clocks are set back.
    """
    name = now.astimezone(UTC).strftime("%Y%m%d_%H%M%S")
    yield name
    yield from (f"{name}_{number}" for number in itertools.count(2))


def age_key(name: str) -> tuple[str, int]:
    """Sorts names by age, the oldest first; whatever is not named by a time comes before all that is. The
    study's folders have names of the same form, in its local time."""
    match = _NAME.fullmatch(name)
    return (match[1], int(match[2] or 1)) if match else ("", 0)


def new_timestamped_folder(parent: Path, now: datetime, announce: Callable[[Path], None]) -> Path:
    """Create the first folder of `names_at` that is not there."""
    make_folder(parent)
    names = names_at(now)
    while True:
        folder = parent / next(names)
        if folder.exists():
            continue
        announce(folder)
        with disk_errors(folder, "create the folder"), contextlib.suppress(FileExistsError):
            disk.take_folder(folder)
            return folder
