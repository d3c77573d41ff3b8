"""The browser that draws a run's figures comes up while the training ends, and goes with the run."""

from __future__ import annotations

import pytest

from triggerctl.cli.figures import STARTS_BEFORE, drawer_for_the_end
from triggerctl.report import images
from triggerctl.training.events import Noted, Stepped


def step(seconds_left: float) -> Stepped:
    return Stepped("main", 1, 2, 0.5, 1.0, {}, 1e-3, None, 100.0, seconds_left)


def test_it_starts_near_the_end_once_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(images, "_Child", lambda tabs: done.append("start") or Child())

    class Child:
        def close(self, *, kindly: bool) -> None:
            done.append("close")

    with drawer_for_the_end() as (_, hear):
        hear(Noted("something"))
        hear(step(STARTS_BEFORE + 60))
        assert done == []
        hear(step(STARTS_BEFORE - 1))
        hear(step(0.0))
        assert done == ["start"]
    assert done == ["start", "close"]


def test_a_run_that_is_stopped_before_needs_no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_Child", lambda tabs: pytest.fail("nothing is to be drawn"))
    with pytest.raises(KeyboardInterrupt), drawer_for_the_end() as (_, hear):
        hear(step(STARTS_BEFORE + 1))
        raise KeyboardInterrupt
