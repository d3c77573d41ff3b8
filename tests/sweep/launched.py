"""A sweep as the command starts it, under any launcher, and what was told while it went on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from triggerctl.config.load import load_config
from triggerctl.config.models import ExperimentConfig
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.results import TriggerctlResults
from triggerctl.sweep.cell import CellOutcome, RunSettings
from triggerctl.sweep.launchers.base import Launcher
from triggerctl.sweep.plan import PlannedCell, plan_sweep
from triggerctl.sweep.run import run_sweep
from triggerctl.training.outcome import Figures


def undrawn(config: ExperimentConfig, drawer: object) -> Figures:
    """No figures: they are no launcher's affair."""
    return _draw_nothing


def _draw_nothing(results: Path, summary: TriggerctlResults, losses: list[float]) -> None:
    return None


def make_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that a cluster starts import this module, and the package as it is tested here."""
    repository = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(repository)]))


SETTINGS = RunSettings(figures=undrawn, device="cpu", threads=1)


@dataclass
class Told:
    """A screen that remembers. `ticked`, where given, is called at every tick."""

    ticked: Callable[[Told], None] | None = None
    notes: list[str] = field(default_factory=list)
    begun: list[Path] = field(default_factory=list)
    ended_with: dict[str, CellOutcome] = field(default_factory=dict)

    def began(self, planned: PlannedCell) -> None:
        self.begun.append(planned.folder.path)

    def ended(self, planned: PlannedCell, outcome: CellOutcome) -> None:
        assert planned.folder.path.name not in self.ended_with, "each cell ends once"
        self.ended_with[planned.folder.path.name] = outcome

    def note(self, text: str) -> None:
        self.notes.append(text)

    def tick(self) -> None:
        if self.ticked is not None:
            self.ticked(self)

    @property
    def outcomes(self) -> dict[str, str]:
        """By the last part of each cell's folder: with seeds alone, `seed_1`."""
        return {name: str(outcome.outcome) for name, outcome in sorted(self.ended_with.items())}


def sweep(
    folder: Path,
    launcher: Launcher,
    *,
    seeds: Sequence[int],
    settings: RunSettings = SETTINGS,
    stop: threading.Event | None = None,
    ticked: Callable[[Told], None] | None = None,
) -> Told:
    """Sweep these seeds; returns what was told."""
    place = ExperimentFolder(folder)
    planned = plan_sweep(place, load_config(place.config), seeds=seeds, strategies=[])
    screen = Told(ticked)
    run_sweep(planned, launcher, replace(settings), screen=screen, stop=stop or threading.Event())
    return screen
