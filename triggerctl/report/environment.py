"""Where the runs were made: each run's environment.json, merged into one table."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from triggerctl import disk
from triggerctl.report.rows import RunRow

SHOWN_VALUES = 3


def read_environment(runs: Sequence[RunRow]) -> list[tuple[str, str]]:
    """(dotted key, value) of what the runs recorded; where they differ the values side by side, commonest
    first.

    A run without the file (the study's), or with one that can't be read, adds nothing.
    """
    values: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for run in runs:
        try:
            recorded = json.loads(disk.read_bytes(run.folder / "environment.json"))
        except (OSError, ValueError):
            continue
        for key, value in _flat(recorded):
            values[key][value] += 1
    return [(key, _merged(found)) for key, found in values.items()]


def _flat(recorded: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(recorded, Mapping):
        for key, value in recorded.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif recorded is not None and recorded != []:
        yield prefix, recorded if isinstance(recorded, str) else json.dumps(recorded, ensure_ascii=False)


def _merged(found: Mapping[str, int]) -> str:
    ranked = sorted(found, key=lambda value: (-found[value], value))
    if len(ranked) == 1:
        return ranked[0]
    named = "; ".join(f"{value} ({found[value]} runs)" for value in ranked[:SHOWN_VALUES])
    rest = len(ranked) - SHOWN_VALUES
    return named + (f"; and {rest} other values" if rest > 0 else "")
