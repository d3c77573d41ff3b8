"""What an experiment tracker is told. Run: pytest tests/training/test_trackers.py"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from engine import run
from every_strategy import experiment_for


class Noted:
    """A tracker that keeps what it is told: (step, names of numbers)."""

    requires_logging_directory = False
    told: ClassVar[list[tuple[int, frozenset[str]]]] = []

    def __init__(self, name: str) -> None:
        self.told.clear()

    def start(self) -> None:
        pass

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        pass

    def log(self, values: dict[str, float], *, step: int) -> None:
        self.told.append((step, frozenset(values)))

    def finish(self) -> None:
        pass


def test_steps_never_go_back_though_each_phase_counts_its_own(
    make_experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tracker leaves out what would go back: of a strategy of two phases, the beginning of the second."""
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "wandb", Noted)
    monkeypatch.setattr("triggerctl.training.run.check_tracker", lambda name: None)
    run(experiment_for("safe_lora", make_experiment, report_to="wandb"))
    steps = [step for step, _ in Noted.told]
    assert steps == sorted(steps)
    losses = [step for step, names in Noted.told if "loss" in names]
    assert losses == list(range(1, len(losses) + 1))
    evaluated = [step for step, names in Noted.told if "outcome/loss" in names]
    assert evaluated[-1] == losses[-1]
