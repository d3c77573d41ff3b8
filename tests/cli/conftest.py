"""What the tests of the commands start from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MakeExperiment = Callable[..., Path]


@pytest.fixture
def experiment(make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The experiment `exp`, found by its name from the working folder."""
    folder = make_experiment("exp")
    monkeypatch.chdir(folder.parents[1])
    monkeypatch.delenv("TRIGGERCTL_ROOT", raising=False)
    return folder
