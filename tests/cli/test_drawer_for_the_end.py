"""The browser that draws a run's figures comes up while the training ends, and goes with the run."""

from __future__ import annotations

import pytest

from triggerctl.cli.figures import STARTS_BEFORE, drawer_for_the_end
from triggerctl.report import images
from triggerctl.training.events import Noted, Stepped


def step(seconds_left: float) -> Stepped:
    return Stepped("main", 1, 2, 0.5, 1.0, {}, 1e-3, None, 100.0, seconds_left)


class Child:
    """In the drawing process's place."""

    def __init__(self, done: list[str]) -> None:
        self._done = done
        done.append("start")

    def close(self, *, kindly: bool) -> None:
        self._done.append("close")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(images, "_Child", lambda tabs: Child(told))
    return told


def test_it_starts_near_the_end_once_and_closes(done: list[str]) -> None:
    with drawer_for_the_end() as (_, hear):
        hear(Noted("something"))
        hear(step(STARTS_BEFORE + 60))
        assert done == []
        hear(step(STARTS_BEFORE - 1))
        hear(step(0.0))
        assert done == ["start"]
    assert done == ["start", "close"]


def test_a_run_that_is_stopped_long_before_starts_none(done: list[str]) -> None:
    def stopped() -> None:
        with drawer_for_the_end() as (_, hear):
            hear(step(STARTS_BEFORE + 1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert done == []
