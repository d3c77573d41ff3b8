"""What a run tells while another process trains it: read from its folder, so that it works wherever the run
is trained, as long as the folder can be seen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triggerctl import disk
from triggerctl.errors import TriggerctlError
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.state import RunState, read_state


class Follower:
    """Follows one run from now on."""

    def __init__(self, folder: ExperimentFolder, run_hash: str) -> None:
        self._folder = folder
        self._hash = run_hash
        self._metrics: Path | None = self._metrics_now()
        self._read = _size(self._metrics)

    def news(self) -> list[Mapping[str, Any]]:
        """The lines that its metrics.jsonl has gained since the last call: each says its `event`."""
        metrics = self._metrics_now()
        if metrics != self._metrics:
            self._metrics, self._read = metrics, 0
        size = _size(metrics)
        if metrics is None or size <= self._read:
            # A run that goes on from a checkpoint cuts the file back to where it stood then.
            self._read = size
            return []
        try:
            with disk.open_to_read(metrics) as file:
                file.seek(self._read)
                gained = file.read(size - self._read)
        except OSError:
            return []  # the run itself says what is wrong with the disk
        whole = gained[: gained.rfind(b"\n") + 1]
        self._read += len(whole)
        return [line for line in map(_parsed, whole.splitlines()) if line is not None]

    def _metrics_now(self) -> Path | None:
        state = self._state()
        if state is None or state.hash != self._hash or state.results is None:
            return None
        return self._folder.results / state.results / "metrics.jsonl"

    def _state(self) -> RunState | None:
        try:
            return read_state(self._folder.state)
        except TriggerctlError:
            return None  # damaged, or out of reach for a moment: the run itself says so where it matters


def _parsed(line: bytes) -> Mapping[str, Any] | None:
    """None for what is no line: the file was cut back and has grown past the old place in one moment."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _size(path: Path | None) -> int:
    try:
        return path.stat().st_size if path is not None else 0
    except OSError:
        return 0
