"""What a cluster's job does with its cell, without a cluster. Run: pytest tests/sweep/test_slurm_cell.py"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from launched import SETTINGS

from triggerctl.config.load import load_config
from triggerctl.experiment.claim import claim
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.sweep.cell import CellJob, CellOutcome, Outcome
from triggerctl.sweep.launchers import slurm_cell
from triggerctl.sweep.launchers.signals import hear
from triggerctl.sweep.launchers.slurm_cell import train_when_free
from triggerctl.training.plan import plan_run

MakeExperiment = Callable[..., Path]


def job(path: Path) -> CellJob:
    folder = ExperimentFolder(path)
    loaded = load_config(folder.config)
    return CellJob(folder, loaded, plan_run(folder, loaded).hash)


def test_a_run_that_is_free_again_is_trained(make_experiment: MakeExperiment) -> None:
    """As after a node's death: the claim stands for a while, then is gone."""
    path = make_experiment("exp", finetune={"epochs": 1, "max_to_eval": 4})
    found: list[CellOutcome] = []
    with ExitStack() as other:
        other.enter_context(claim(path))
        cell = job(path)
        waiting = threading.Thread(
            target=lambda: found.append(train_when_free(cell, SETTINGS, stop=threading.Event()))
        )
        waiting.start()
        waiting.join(slurm_cell._LOOK_SECONDS / 2)
        assert waiting.is_alive()
    waiting.join(120)
    assert found[0].outcome is Outcome.DONE


def test_a_run_that_stays_claimed_is_given_up_and_so_is_waiting_when_told_to_stop(
    make_experiment: MakeExperiment,
) -> None:
    path = make_experiment("exp", finetune={"epochs": 1, "max_to_eval": 4})
    stop = threading.Event()
    with claim(path):
        assert train_when_free(job(path), SETTINGS, stop=stop, patience=0).outcome is Outcome.BUSY
        stop.set()
        assert train_when_free(job(path), SETTINGS, stop=stop, patience=600).outcome is Outcome.BUSY
    assert not (path / "results").exists()


def test_signals_are_heard_within_the_block_only() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    with hear(["SIGUSR2", "SIGTERM", "SIGNOWHERE"]) as heard:
        assert not heard.stop.is_set()
        os.kill(os.getpid(), signal.SIGUSR2)
        assert heard.stop.wait(5)
        assert heard.numbers == {signal.SIGUSR2}
    assert {number: signal.getsignal(number) for number in before} == before


def test_outside_the_main_thread_signals_stay_as_they_are() -> None:
    seen: list[object] = []

    def elsewhere() -> None:
        with hear(["SIGTERM"]):
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]
