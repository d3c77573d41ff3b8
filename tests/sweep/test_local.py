"""How this machine is shared among a sweep's runs. Run: pytest tests/sweep/test_local.py"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from launched import sweep

from triggerctl.cli.figures import figures_of
from triggerctl.config.load import load_config
from triggerctl.errors import InterruptedRunError, RunError
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.sweep import check
from triggerctl.sweep.cell import CellJob, CellOutcome, Outcome, RunSettings
from triggerctl.sweep.check import Checked
from triggerctl.sweep.launchers import local, waiting
from triggerctl.sweep.launchers.local import DEATHS, LocalLauncher, Room, share_out
from triggerctl.sweep.launchers.waiting import Waiting

GIB = 2**30


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "available_cores", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def settings(**values: int | str) -> RunSettings:
    return RunSettings(figures=figures_of, **values)  # type: ignore[arg-type]


def on_cpu(*memory: int, capacity: int = 64 * GIB) -> Checked:
    return Checked(memory={str(i): each for i, each in enumerate(memory)}, capacity=capacity)


def on_gpus(devices: int) -> Checked:
    return Checked(kind="cuda", devices=devices, capacity=80 * GIB, memory={"0": 30 * GIB})


@pytest.mark.parametrize(
    ("asked", "cells", "jobs", "threads"),
    [(None, 40, 8, 1), (None, 3, 3, 2), (None, 1, 1, 8), (2, 40, 2, 4), (16, 40, 16, 1)],
)
def test_on_a_cpu_the_cores_are_shared(asked: int | None, cells: int, jobs: int, threads: int) -> None:
    assert share_out(asked, on_cpu(GIB), settings(), cells=cells) == Room(jobs, threads, (None,) * jobs)


def test_no_more_runs_at_once_than_the_largest_has_room_for() -> None:
    assert share_out(None, on_cpu(GIB, 20 * GIB), settings(), cells=40).jobs == 2
    assert share_out(None, on_cpu(100 * GIB), settings(), cells=40).jobs == 1
    assert share_out(5, on_cpu(20 * GIB), settings(), cells=40).jobs == 5


def test_threads_that_are_asked_for_are_taken() -> None:
    assert share_out(None, on_cpu(GIB), settings(threads=3), cells=40).threads == 3


def test_each_worker_has_a_gpu_of_its_own() -> None:
    room = share_out(None, on_gpus(4), settings(), cells=3)
    assert (room.jobs, room.pins) == (3, ("0", "1", "2"))
    assert share_out(6, on_gpus(4), settings(), cells=40).pins == ("0", "1", "2", "3", "0", "1")
    assert share_out(None, on_gpus(1), settings(), cells=40) == Room(1, None, (None,))


def test_a_run_on_several_gpus_has_neighbours_of_its_own() -> None:
    room = share_out(None, on_gpus(5), settings(gpus_per_run=2), cells=40)
    assert (room.jobs, room.pins) == (2, ("0,1", "2,3"))


def test_gpus_are_called_what_the_cluster_calls_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert share_out(None, on_gpus(2), settings(), cells=40).pins == ("GPU-a", "GPU-b")


def test_a_device_asked_for_by_its_number_is_left_where_it_is() -> None:
    asked_for = settings(device="cuda:1")
    assert share_out(None, on_gpus(4), asked_for, cells=40) == Room(1, None, (None,))
    assert share_out(2, on_gpus(4), asked_for, cells=40) == Room(2, None, (None, None))


def test_more_runs_than_gpus_are_spread_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = LocalLauncher(6, cells=40)

    def begin(environment: Mapping[str, str]) -> SimpleNamespace:
        worker = SimpleNamespace(job="a run", pin=environment["CUDA_VISIBLE_DEVICES"])
        launcher._workers.append(worker)  # type: ignore[arg-type]
        return worker

    monkeypatch.setattr(launcher, "_begin", begin)
    room = share_out(6, on_gpus(2), settings(), cells=40)
    while launcher._idle(room) is not None:
        pass
    assert Counter(worker.pin for worker in launcher._workers) == {"0": 3, "1": 3}


class Killer(threading.Event):
    """Is never set; when asked, kills the worker that is there, so many times."""

    def __init__(self, kills: int) -> None:
        super().__init__()
        self.left = kills

    def is_set(self) -> bool:
        if self.left and (workers := multiprocessing.active_children()):
            workers[0].kill()
            workers[0].join()
            self.left -= 1
        return False


def test_a_claim_that_cannot_be_read_is_waited_for(
    make_experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ExperimentFolder(make_experiment("exp"))
    (place.path / ".lock").mkdir()
    waited = Waiting()
    waited.add(CellJob(place, load_config(place.config), "1-abc"))
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.0)
    assert waited.ready() == []
    monkeypatch.setattr(waiting, "TRY_SECONDS", 0.0)
    assert len(waited.ready()) == 1


@pytest.mark.parametrize("error", [RunError("the disk is full"), KeyError("a defect")])
def test_whatever_a_check_meets_with_is_said_of_its_run(
    error: Exception, make_experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(*given: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(check, "plan_run", plan)
    place = ExperimentFolder(make_experiment("exp"))
    job = CellJob(place, load_config(place.config), "1-abc")
    (problem,) = check.check_cells([job], settings(device="cpu")).problems["1-abc"]
    assert str(error) in problem.what


class Deaf:
    """Stands for a worker that was asked to stop: whatever it is given, it stops at once."""

    def __init__(self, environment: object, *, ask: Callable[[], Outcome]) -> None:
        self.job: CellJob | None = None
        self.pin = None
        self.connection = self
        self.process = SimpleNamespace(join=lambda: None)
        self._ask = ask

    def train(self, job: CellJob, settings: RunSettings) -> None:
        self.job = job

    def receive(self) -> CellOutcome:
        assert self.job is not None
        return CellOutcome(self.job.folder, self._ask(), "")

    def close(self) -> None:
        self.job = None


@pytest.mark.parametrize(("stops", "last"), [(1, Outcome.DONE), (DEATHS, Outcome.INTERRUPTED)])
def test_a_worker_that_was_asked_to_stop_alone_is_replaced(
    stops: int, last: Outcome, make_experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ExperimentFolder(make_experiment("exp"))
    asked = iter([Outcome.INTERRUPTED] * stops + [Outcome.DONE])
    workers: list[Deaf] = []

    def begin(environment: object) -> Deaf:
        workers.append(Deaf(environment, ask=lambda: next(asked)))
        return workers[-1]

    monkeypatch.setattr(local, "_Worker", begin)
    monkeypatch.setattr(local, "wait", lambda connections, seconds: connections)
    ended: list[CellOutcome] = []
    LocalLauncher(1, cells=1).launch(
        [CellJob(place, load_config(place.config), "1-abc")],
        settings(),
        began=lambda job: None,
        ended=ended.append,
        note=lambda text: None,
        tick=lambda: None,
        stop=threading.Event(),
    )
    assert [outcome.outcome for outcome in ended] == [last]
    assert len(workers) == min(stops + 1, DEATHS)


def test_a_check_that_takes_its_worker_with_it_is_made_by_another(
    make_experiment: Callable[..., Path],
) -> None:
    folder = make_experiment("exp", finetune={"epochs": 1, "max_to_eval": 4})
    with pytest.raises(RunError, match=f"died, {DEATHS} times") as raised:
        sweep(folder, LocalLauncher(1, cells=1), seeds=[1], stop=Killer(DEATHS))
    assert "SIGKILL" in str(raised.value)
    assert not (folder / "sweeps").exists()
    told = sweep(folder, LocalLauncher(1, cells=1), seeds=[1], stop=Killer(DEATHS - 1))
    assert told.outcomes == {"seed_1": "done"}


class ByTheSecondLook(threading.Event):
    """Is set once it has been looked at: while the check goes on."""

    def __init__(self) -> None:
        super().__init__()
        self._looks = 0

    def is_set(self) -> bool:
        self._looks += 1
        return self._looks > 1


def test_a_check_that_is_stopped_is_not_waited_for(
    make_experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_experiment("exp")
    begun: list[Any] = []
    begin = LocalLauncher._begin

    def noted(self: LocalLauncher, around: Any) -> Any:
        begun.append(begin(self, around))
        return begun[-1]

    monkeypatch.setattr(LocalLauncher, "_begin", noted)
    with pytest.raises(InterruptedRunError):
        sweep(folder, LocalLauncher(1, cells=1), seeds=[1], stop=ByTheSecondLook())
    [worker] = begun
    assert worker.process.exitcode == -signal.SIGKILL
