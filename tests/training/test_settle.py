"""What a folder says of a run that failed before it could say anything. Run: pytest
tests/training/test_settle.py"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from triggerctl.experiment.claim import claim
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.state import RunState, read_state, write_state
from triggerctl.training.settle import settle_failed

NOW = datetime.now(UTC)
BEFORE, AFTER = NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)


@pytest.fixture
def run(tmp_path: Path) -> ExperimentFolder:
    return ExperimentFolder(tmp_path)


def after_failure(run: ExperimentFolder) -> RunState | None:
    settle_failed(run, "1-a", "no such model", strategy="kl", seed=5, since=NOW)
    return read_state(run.state)


def test_a_run_without_a_state_is_failed_and_says_why(run: ExperimentFolder) -> None:
    state = after_failure(run)
    assert state is not None
    assert (state.status, state.error, state.hash) == ("failed", "no such model", "1-a")
    assert (state.strategy, state.seed) == ("kl", 5)
    assert [path.name for path in run.path.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    "found",
    [
        RunState(status="running", hash="1-a", results="r", step=7),
        RunState(status="interrupted", hash="1-a", results="r", step=7),
        RunState(status="failed", hash="1-a", results="r", step=7, error="of old", finished=BEFORE),
    ],
    ids=lambda state: state.status,
)
def test_how_far_it_had_come_stays_known(run: ExperimentFolder, found: RunState) -> None:
    write_state(run.state, found)
    state = after_failure(run)
    assert state is not None
    assert (state.status, state.error) == ("failed", "no such model")
    assert (state.results, state.step) == ("r", 7)


def test_of_another_configuration_nothing_stays(run: ExperimentFolder) -> None:
    write_state(run.state, RunState(status="done", hash="1-b", results="r", step=7))
    state = after_failure(run)
    assert state is not None
    assert (state.status, state.hash, state.results, state.step) == ("failed", "1-a", None, 0)


@pytest.mark.parametrize(
    "found",
    [
        RunState(status="done", hash="1-a", results="r"),
        RunState(status="failed", hash="1-a", error="its own words", finished=AFTER),
    ],
    ids=lambda state: state.status,
)
def test_what_the_run_has_said_itself_stands(run: ExperimentFolder, found: RunState) -> None:
    write_state(run.state, found)
    assert after_failure(run) == found


def test_a_run_that_another_process_is_at_is_left_alone(run: ExperimentFolder) -> None:
    with claim(run.path):
        assert after_failure(run) is None
