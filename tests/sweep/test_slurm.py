"""A sweep through submitit, on real small runs; needs the extra `slurm`. Slurm itself is not needed: the jobs
are processes of this machine (submitit's local executor). Run: pytest tests/sweep/test_slurm.py"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from engine import left_behind, run, state
from launched import Told, make_reachable, sweep

from triggerctl.errors import InterruptedRunError
from triggerctl.experiment.claim import claim
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.sweep.cell import CellJob, RunSettings
from triggerctl.sweep.check import Checked
from triggerctl.sweep.launchers import slurm
from triggerctl.sweep.launchers.slurm import SlurmLauncher
from triggerctl.sweep.launchers.slurm_jobs import queued_in_slurm
from triggerctl.sweep.launchers.slurm_options import SlurmOptions

MakeExperiment = Callable[..., Path]
SHORT = {"epochs": 1, "max_to_eval": 4}
LONG = {"epochs": 400, "max_to_eval": 2}


@pytest.fixture(autouse=True)
def _reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    make_reachable(monkeypatch)


def launcher(folder: Path, *, wait: bool = False) -> SlurmLauncher:
    options = SlurmOptions(minutes=30)
    return SlurmLauncher(ExperimentFolder(folder), options, wait=wait, cluster="local", look_seconds=0.5)


def results(folder: Path) -> Path:
    (found,) = (folder / "results").iterdir()
    return found


def until(holds: Callable[[], bool], what: str) -> None:
    last = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < last, f"never: {what}"
        time.sleep(0.1)


def trains(folder: Path) -> bool:
    if not (folder / "state.json").is_file():
        return False
    seen = state(folder)
    return bool(seen["status"] == "running" and seen["step"] > 0)


def records(folder: Path) -> list[Path]:
    return sorted((folder / "sweeps" / "slurm").glob("*.json"))


@pytest.mark.slow
def test_waiting_for_the_jobs_tells_what_became_of_each(make_experiment: MakeExperiment) -> None:
    """A results path that is a file makes the first run fail once it starts."""
    folder = make_experiment("exp", finetune=SHORT)
    (folder / "seed_1").mkdir()
    (folder / "seed_1" / "results").write_text("in the way", encoding="utf-8")
    told = sweep(folder, launcher(folder, wait=True), seeds=[1, 2])
    assert told.outcomes == {"seed_1": "failed", "seed_2": "done"}
    error = told.ended_with["seed_1"].error
    assert error is not None
    assert "results" in str(error)
    assert told.ended_with["seed_2"].results == results(folder / "seed_2")
    assert "scancel" in told.notes[0]


@pytest.mark.slow
def test_a_submitted_sweep_goes_on_alone_and_is_not_submitted_again(
    make_experiment: MakeExperiment,
) -> None:
    folder = make_experiment("exp", finetune=LONG)
    at_work = launcher(folder)
    told = sweep(folder, at_work, seeds=[1])
    assert told.outcomes == {"seed_1": "submitted"}
    (record,) = records(folder)
    ((job, cell),) = json.loads(record.read_text(encoding="utf-8"))["jobs"].items()
    assert cell["folder"] == "seed_1"
    assert job in told.ended_with["seed_1"].reason
    until(lambda: trains(folder / "seed_1"), "seed_1 trains")

    again = sweep(folder, at_work, seeds=[1])
    assert again.outcomes == {"seed_1": "submitted"}
    assert "not submitted again" in again.notes[0]
    assert records(folder) == [record]

    os.kill(state(folder / "seed_1")["pid"], signal.SIGTERM)
    until(lambda: state(folder / "seed_1")["status"] == "interrupted", "seed_1 stops with a checkpoint")
    until(lambda: not (folder / "seed_1" / ".lock").exists(), "its claim is given back")


@pytest.mark.slow
def test_the_signal_of_a_preemption_queues_the_run_again_and_it_goes_on(
    make_experiment: MakeExperiment,
) -> None:
    finetune = {"epochs": 25, "max_to_eval": 2}
    folder = make_experiment("exp", finetune=finetune)
    pids: list[int] = []

    def preempt_once_it_trains(told: Told) -> None:
        if not trains(folder / "seed_1"):
            return
        pid = state(folder / "seed_1")["pid"]
        if not pids:
            os.kill(pid, signal.SIGUSR2)
        if pid not in pids:
            pids.append(pid)

    told = sweep(folder, launcher(folder, wait=True), seeds=[1], ticked=preempt_once_it_trains)
    assert told.outcomes == {"seed_1": "done"}
    assert len(pids) == 2, "another process went on"
    alone = make_experiment("alone", finetune=finetune, seed=1)
    expected, found = left_behind(run(alone)), left_behind(results(folder / "seed_1"))
    for name in ("metrics.jsonl", "verdicts.jsonl", "adapter/adapter_model.safetensors"):
        assert found[name] == expected[name]


@pytest.mark.slow
def test_ctrl_c_while_waiting_leaves_the_jobs_and_says_how_to_cancel_them(
    make_experiment: MakeExperiment,
) -> None:
    folder = make_experiment("exp", finetune=LONG)
    stop = threading.Event()

    def stop_once_it_trains(told: Told) -> None:
        if trains(folder / "seed_1"):
            stop.set()

    told = sweep(folder, launcher(folder, wait=True), seeds=[1], stop=stop, ticked=stop_once_it_trains)
    assert told.outcomes == {"seed_1": "submitted"}
    assert "scancel" in told.notes[-1]
    assert trains(folder / "seed_1")
    os.kill(state(folder / "seed_1")["pid"], signal.SIGTERM)
    until(lambda: not (folder / "seed_1" / ".lock").exists(), "it stops")


def test_a_job_that_cannot_begin_is_a_failure_with_its_last_words(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_experiment("exp", finetune=SHORT)
    # What the runs need is not found where the job runs.
    monkeypatch.delenv("PYTHONPATH")
    told = sweep(folder, launcher(folder, wait=True), seeds=[1])
    assert told.outcomes == {"seed_1": "failed"}
    assert "No module named" in told.ended_with["seed_1"].reason


@pytest.mark.slow
def test_two_do_not_submit_at_once(make_experiment: MakeExperiment) -> None:
    folder = make_experiment("exp", finetune=SHORT)
    jobs = folder / "sweeps" / "slurm"
    jobs.mkdir(parents=True)
    with contextlib.ExitStack() as other:
        other.enter_context(claim(jobs))
        seen = []

        def let_go(told: Told) -> None:
            seen.append(len(records(folder)))
            other.close()

        told = sweep(folder, launcher(folder, wait=True), seeds=[1], ticked=let_go)
    assert seen[0] == 0, "nothing is submitted while another submits"
    assert told.outcomes == {"seed_1": "done"}


def test_the_queue_is_read_by_number_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for squeue, which answers as Slurm does: numbers are used again, also for others' jobs."""
    squeue = tmp_path / "squeue"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    squeue.write_text("#!/bin/sh\nprintf '12_0|triggerctl-exp\\n12_2|triggerctl-exp\\n13|other\\n'\n")
    squeue.chmod(0o755)
    assert queued_in_slurm(["12_0", "12_1", "13"], "triggerctl-exp") == {"12_0"}
    says = "#!/bin/sh\necho 'slurm_load_jobs error: {}' >&2\nexit 1\n"
    squeue.write_text(says.format("Invalid job id specified"))
    assert queued_in_slurm(["12_0"], "triggerctl-exp") == set()
    squeue.write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n"
    )
    assert queued_in_slurm(["12_0"], "triggerctl-exp") is None


def test_what_is_stopped_while_it_is_checked_is_not_submitted(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_experiment("exp", finetune=SHORT)
    stop = threading.Event()

    def check(jobs: Sequence[CellJob], settings: RunSettings) -> Checked:
        stop.set()
        return Checked()

    monkeypatch.setattr(slurm, "check_cells", check)
    with pytest.raises(InterruptedRunError, match="before any job was submitted"):
        sweep(folder, launcher(folder), seeds=[1, 2], stop=stop)
    assert records(folder) == []
