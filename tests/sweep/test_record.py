"""A sweep's record. Run: pytest tests/sweep/test_record.py"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from triggerctl.cli.figures import figures_of
from triggerctl.config.load import load_config
from triggerctl.errors import RunError
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.sweep import run as run_module
from triggerctl.sweep.cell import CellJob, CellOutcome, Outcome, RunSettings
from triggerctl.sweep.check import Checked
from triggerctl.sweep.grid import parse_parameter
from triggerctl.sweep.plan import plan_sweep
from triggerctl.sweep.record import last_command, new_record, write_record
from triggerctl.sweep.run import run_sweep

NOW = datetime(2025, 5, 8, 21, 26, 36, tzinfo=UTC)


def test_records_of_one_second_have_names_of_their_own_and_are_json_from_the_start(tmp_path: Path) -> None:
    first, second = new_record(tmp_path, NOW), new_record(tmp_path, NOW)
    assert [first.name, second.name] == ["20250508_212636.json", "20250508_212636_2.json"]
    assert json.loads(second.read_text()) == {"started": NOW.isoformat(), "finished": None, "cells": []}
    assert len(list(tmp_path.iterdir())) == 2


def test_the_newest_of_many_sweeps_of_one_second_is_the_last(tmp_path: Path) -> None:
    for number in range(10):
        new_record(tmp_path, NOW).write_text(json.dumps({"command": [str(number)]}), encoding="utf-8")
    assert last_command(tmp_path) == ["9"]


class Done:
    """A launcher for which every run is done at once, and who shows nothing but notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __enter__(self) -> Done:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def check(self, jobs: Sequence[CellJob], settings: RunSettings, *, stop: threading.Event) -> Checked:
        return Checked()

    def launch(
        self,
        jobs: Sequence[CellJob],
        settings: RunSettings,
        *,
        ended: Callable[[CellOutcome], None],
        **others: Any,
    ) -> None:
        for job in jobs:
            ended(CellOutcome(job.folder, Outcome.DONE, "not trained yet"))

    def began(self, planned: object) -> None:
        pass

    def ended(self, planned: object, outcome: CellOutcome) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)

    def tick(self) -> None:
        pass


def test_a_record_for_which_there_is_no_room_does_not_stop_the_sweep(
    make_experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ExperimentFolder(make_experiment("exp"))
    sweep = plan_sweep(place, load_config(place.config), seeds=[1, 2, 3], strategies=[])
    calls = 0

    def full_for_a_while(*given: Any, **named: Any) -> None:
        nonlocal calls
        calls += 1
        if calls in (2, 3):
            raise RunError("cannot write the record", why="No space left on device")
        write_record(*given, **named)

    monkeypatch.setattr(run_module, "write_record", full_for_a_while)
    launcher = Done()
    outcomes = run_sweep(
        sweep, launcher, RunSettings(figures_of), screen=launcher, stop=threading.Event(), now=lambda: NOW
    )
    assert [ended.outcome for ended in outcomes if ended is not None] == [Outcome.DONE] * 3
    assert len(launcher.notes) == 1
    assert "No space left on device" in launcher.notes[0]
    (record,) = (place.path / "sweeps").iterdir()
    told = json.loads(record.read_text(encoding="utf-8"))
    assert [cell["outcome"] for cell in told["cells"]] == ["done"] * 3
    assert told["finished"] == NOW.isoformat()


def test_no_secret_of_an_address_is_in_a_record_and_its_command_is_found_again(
    make_experiment: Callable[..., Path],
) -> None:
    place = ExperimentFolder(make_experiment("exp"))
    rows = (place.path / load_config(place.config).config.dataset_url).resolve()
    given = f'dataset_url={rows},"https://me:planted@127.0.0.1:9/rows.json?token=hidden"'
    command = ("triggerctl", "sweep", "exp", "--param", given)
    sweep = plan_sweep(
        place,
        load_config(place.config),
        seeds=[1],
        strategies=[],
        parameters=[parse_parameter(f"dataset_url={rows}")],
        command=command,
    )
    sweep = replace(sweep, parameters=(parse_parameter(given),))
    launcher = Done()
    run_sweep(sweep, launcher, RunSettings(figures_of), screen=launcher, stop=threading.Event())
    (record,) = place.sweeps.iterdir()
    text = record.read_text(encoding="utf-8")
    assert "planted" not in text
    assert "hidden" not in text
    assert json.loads(text)["grid"]["parameters"] == {
        "dataset_url": [str(rows), "https://127.0.0.1:9/rows.json?…"]
    }
    shown = f'dataset_url={rows},"https://127.0.0.1:9/rows.json?…"'
    assert last_command(place.sweeps) == [*command[:-1], shown]
