"""What a sweep was: its command line, its grid, every cell with its folder, hash and outcome, in one file
that is written anew at each change. It is for people and for `status`, who read it and pass it on: of an
address it holds only what is no secret. Workers are given a cell's configuration and never look here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from triggerctl import disk
from triggerctl.config.paths import without_secrets
from triggerctl.experiment.atomic import (
    clear_unfinished_writes,
    create_json_atomic,
    make_folder,
    write_json_atomic,
)
from triggerctl.experiment.time_names import age_key, names_at


def new_record(folder: Path, now: datetime) -> Path:
    """Take the first name of `names_at` that is free for a sweep that starts now; until `write_record` the
    file says no more than that. Raises InputError or RunError if the folder can't be written."""
    make_folder(folder)
    clear_unfinished_writes(folder)
    started: dict[str, object] = {"started": now.isoformat(), "finished": None, "cells": []}
    paths = (folder / f"{name}.json" for name in names_at(now))
    return next(path for path in paths if create_json_atomic(path, started))


def last_command(folder: Path) -> list[str]:
    """The words of the newest sweep recorded in this folder, as they were typed but for the secrets of
    addresses; none where no record can be read."""
    for path in sorted(folder.glob("*.json"), key=lambda path: age_key(path.stem), reverse=True):
        try:
            command = json.loads(disk.read_bytes(path))["command"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(command, list) and all(isinstance(word, str) for word in command):
            return command
    return []


def write_record(
    path: Path,
    *,
    command: Sequence[str],
    seeds: Sequence[int],
    strategies: Sequence[str],
    parameters: Mapping[str, Sequence[object]],
    started: datetime,
    finished: datetime | None,
    cells: Sequence[dict[str, Any]],
) -> None:
    """Write the record. `finished` is None while the sweep goes on; each cell says folder, strategy, seed,
    hash, outcome (null: still to come), reason, results and seconds."""
    write_json_atomic(
        path,
        {
            "command": without_secrets(command),
            "grid": {
                "seeds": list(seeds),
                "strategies": list(strategies),
                "parameters": without_secrets(parameters),
            },
            "started": started.isoformat(),
            "finished": finished.isoformat() if finished is not None else None,
            "cells": list(cells),
        },
    )
