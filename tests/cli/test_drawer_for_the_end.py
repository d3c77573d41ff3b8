"""The browser that draws a run's figures comes up while libraries load, does not lie idle beside a long
training, and goes with the run."""

from __future__ import annotations

import pytest

from triggerctl.cli.figures import IDLE_FOR, STARTS_BEFORE, drawer_for_the_end
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
        self._done.append("close" if kindly else "kill")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(images, "_Child", lambda tabs: Child(told))
    return told


def test_that_of_a_short_run_starts_at_once_and_stays(done: list[str]) -> None:
    with drawer_for_the_end() as (_, hear):
        assert done == ["start"]
        hear(Noted("something"))
        hear(step(IDLE_FOR))
        hear(step(STARTS_BEFORE - 1))
        hear(step(0.0))
        assert done == ["start"]
    assert done == ["start", "close"]


def test_that_of_a_long_run_ends_and_starts_again_near_the_end(done: list[str]) -> None:
    with drawer_for_the_end() as (_, hear):
        hear(step(IDLE_FOR + 1))
        assert done == ["start", "kill"]
        hear(step(IDLE_FOR + 1))
        hear(step(STARTS_BEFORE + 1))
        assert done == ["start", "kill"]
        hear(step(STARTS_BEFORE))
        hear(step(0.0))
    assert done == ["start", "kill", "start", "close"]


def test_a_run_that_ends_early_does_not_wait_for_it(done: list[str]) -> None:
    def stopped() -> None:
        with drawer_for_the_end() as (_, hear):
            hear(step(IDLE_FOR - 1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert done == ["start", "kill"]
