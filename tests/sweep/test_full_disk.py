"""A disk that is full from some write on, for every write of a short run: the run fails with the reason and
the mend, and once there is room it ends as if nothing had been. Run: pytest tests/sweep/test_full_disk.py

That the disk is full is made up here: what opens a file to write it, makes a folder or adds to a file is told
so. tests/end_to_end/full_disk.py fills a real one."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from engine import leavings, left_behind, no_figures

from triggerctl.config.load import load_config
from triggerctl.config.models import ExperimentConfig
from triggerctl.experiment import jsonl
from triggerctl.experiment.claim import claim, holder_of
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.state import run_status
from triggerctl.sweep.cell import CellJob, CellOutcome, Outcome, RunSettings, train_cell
from triggerctl.training.outcome import Figures
from triggerctl.training.plan import plan_run

MakeExperiment = Callable[..., Path]


class Disk:
    """Counts writes below `root`; from number `full_from` on they are refused."""

    def __init__(self) -> None:
        self.root: Path | None = None
        self.full_from: int | None = None
        self.writes = 0
        self.refused = 0

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python tells of what is about to happen; an error raised here stops it."""
        if self.root is None or event not in ("open", "os.mkdir"):
            return
        path = arguments[0]
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(str(self.root)):
            self.write()

    def write(self) -> None:
        self.writes += 1
        if self.full_from is not None and self.writes >= self.full_from:
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


DISK = Disk()
sys.addaudithook(DISK.heard)


class Lines:
    """A file of lines on that disk: of what does not fit, half is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, content: bytes) -> int:
        try:
            DISK.write()
        except OSError:
            self._file.write(content[: len(content) // 2])
            raise
        return self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.fixture(autouse=True)
def _disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    whole = jsonl.JsonLinesWriter.__init__

    def on_it(self: jsonl.JsonLinesWriter, path: Path) -> None:
        whole(self, path)
        self._file = Lines(self._file)  # type: ignore[assignment]

    monkeypatch.setattr(jsonl.JsonLinesWriter, "__init__", on_it)
    DISK.root = tmp_path / "experiments"
    yield
    DISK.root = DISK.full_from = None


def figures(config: ExperimentConfig, drawer: object) -> Figures:
    return no_figures


def train(folder: Path, *, full_from: int | None = None) -> CellOutcome:
    place = ExperimentFolder(folder)
    loaded = load_config(place.config)
    job = CellJob(place, loaded, plan_run(place, loaded).hash)
    DISK.full_from, DISK.writes, DISK.refused = full_from, 0, 0
    try:
        return train_cell(job, RunSettings(figures, device="cpu", threads=1), stop=threading.Event())
    finally:
        DISK.full_from = None


@pytest.fixture
def make_short(make_experiment: MakeExperiment) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        values = {"epochs": 1, "max_to_eval": 1, "per_device_train_batch_size": 32}
        return make_experiment(name, experiment_name="one", max_dataset_size=40, finetune=values)

    return make


@pytest.mark.slow
def test_wherever_the_disk_fills_up_the_run_says_so_and_goes_on_once_there_is_room(
    make_short: Callable[[str], Path],
) -> None:
    """The first run finds the disk full from write 1 on, the next from write 4 on, and so forth: each kind of
    file is written several times."""
    undisturbed = make_short("undisturbed")
    outcome = train(undisturbed)
    assert outcome.results is not None
    whole, writes = left_behind(outcome.results), DISK.writes
    assert writes > 30
    for number in range(1, writes + 1, 3):
        folder = make_short(f"full_from_{number}")
        outcome = train(folder, full_from=number)
        assert DISK.refused, number
        if outcome.outcome is not Outcome.DONE:
            assert outcome.outcome is Outcome.FAILED, (number, outcome)
            assert "No space left on device" in outcome.reason, (number, outcome)
            assert "the same command again" in outcome.reason, (number, outcome)
            assert run_status(folder)[1] != "running", number
        holder = holder_of(folder)
        assert holder is None or holder.is_stale(0.0), number

        outcome = train(folder)
        assert outcome.outcome in (Outcome.DONE, Outcome.SKIPPED), (number, outcome)
        assert outcome.results is not None
        assert left_behind(outcome.results) == whole, number
        assert leavings(folder) == [], number
        assert run_status(folder)[1] == "done", number


def test_a_claim_that_finds_no_room_for_its_end_counts_as_given_back(tmp_path: Path) -> None:
    """The process that held it lives on, as a worker does."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    with claim(folder):
        DISK.full_from = 1
    DISK.full_from = None
    holder = holder_of(folder)
    assert holder is not None
    assert holder.is_given_back
    assert [path.name for path in folder.iterdir()] == [".lock"]
    with claim(folder):
        pass
    assert list(folder.iterdir()) == []
