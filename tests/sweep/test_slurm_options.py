"""What `--slurm` takes, and what becomes of it. Run: pytest tests/sweep/test_slurm_options.py"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launched import SETTINGS

from triggerctl.config.load import parse_config
from triggerctl.errors import InputError
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.sweep.cell import CellJob
from triggerctl.sweep.launchers.slurm_options import (
    DEFAULT_MINUTES,
    SlurmOptions,
    parse_minutes,
    parse_slurm_options,
)
from triggerctl.sweep.launchers.slurm_resources import THREADS, parameters

GIB = 2**30


def test_options_are_words_by_sbatchs_names() -> None:
    said = ["partition=gpu", "time=1-12", "A=lab", "gres=gpu:a100:1", "--mail_user=me@lab", "exclusive"]
    found = parse_slurm_options(said)
    assert (found.partition, found.account, found.minutes) == ("gpu", "lab", 36 * 60)
    assert found.extra == {"gres": "gpu:a100:1", "mail-user": "me@lab", "exclusive": ""}
    assert parse_slurm_options(["mem=4G", "mem=8G"]).extra == {"mem": "8G"}
    assert parse_slurm_options([]) == SlurmOptions(minutes=DEFAULT_MINUTES)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("90:30", 91),
        ("2:00:00", 120),
        ("1-0", 1440),
        ("1-2:30", 1590),
        ("2-0:0:1", 2881),
    ],
)
def test_times_are_slurms(text: str, minutes: int) -> None:
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("time=soon", "time limit"),
        ("time=0", "time limit"),
        ("time=1:2:3:4", "time limit"),
        ("partition=", "option of sbatch"),
        ("exclusve", "exclusive"),
        ("=4", "option of sbatch"),
        ("array=0-3", "sets Slurm's option 'array' itself"),
        ("signal=USR1@10", "sets Slurm's option 'signal' itself"),
        ("cpus-per-task=many", "number of cores"),
    ],
)
def test_what_is_no_option_is_refused_by_name(word: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        parse_slurm_options([word])
    assert refused.value.problems[0].where is not None
    assert refused.value.problems[0].mend


def asked(
    *words: str, device: str = "cpu", threads: int | None = None, gpus: int = 1, memory: int | None = None
) -> tuple[dict[str, Any], int | None]:
    """What is asked of Slurm, and the threads that runs are given."""
    settings = replace(SETTINGS, device=device, threads=threads, gpus_per_run=gpus)
    loaded = parse_config({}, path=Path("exp/config.json"))
    job = CellJob(ExperimentFolder(Path("exp")), loaded, "hash", memory)
    found, changed = parameters(parse_slurm_options(words), settings, [job], at_once=None)
    return found, changed.threads


def test_a_run_has_as_many_cores_as_threads() -> None:
    assert asked(threads=2)[0]["cpus_per_task"] == 2
    assert asked(threads=2, gpus=2)[0]["cpus_per_task"] == 4
    found, threads = asked("cpus-per-task=8")
    assert (found["cpus_per_task"], threads) == (8, 8)
    assert asked("cpus-per-task=8", gpus=2)[1] == 4
    found, threads = asked()
    assert (found["cpus_per_task"], threads) == (THREADS, THREADS)
    assert found["slurm_srun_args"] == [f"--cpus-per-task={THREADS}"]


def test_gpus_are_asked_for_where_runs_are_to_use_them_and_the_user_has_not_said_how() -> None:
    assert "gpus_per_node" not in asked()[0]
    assert asked(device="cuda", gpus=2)[0]["gpus_per_node"] == 2
    assert "gpus_per_node" not in asked("gres=gpu:a100:1", device="cuda")[0]


def test_memory_is_the_estimate_with_room_unless_the_user_says_or_a_gpu_holds_it() -> None:
    assert asked(memory=8 * GIB)[0]["mem_gb"] == 12
    assert "mem_gb" not in asked()[0]
    assert "mem_gb" not in asked("mem=3G", memory=8 * GIB)[0]
    assert "mem_gb" not in asked(device="cuda", memory=8 * GIB)[0]


def test_jobs_may_be_queued_again_unless_the_user_forbids_it() -> None:
    assert asked()[0]["slurm_additional_parameters"] == {"requeue": True}
    assert asked("no-requeue")[0]["slurm_additional_parameters"] == {"no-requeue": True}


def test_which_gpu_a_job_has_is_slurms_to_say() -> None:
    with pytest.raises(InputError, match="'cuda:1'"):
        asked(device="cuda:1")
