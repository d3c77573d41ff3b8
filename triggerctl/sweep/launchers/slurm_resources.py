"""What Slurm is asked for, for the job of a run: cores, memory, GPUs, time, and how many jobs at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from triggerctl.sweep.cell import CellJob, RunSettings
from triggerctl.sweep.launchers.base import refuse_numbered_gpu
from triggerctl.sweep.launchers.slurm_options import SlurmOptions

THREADS = 4
"""CPU threads of a run, and cores asked for it, where the user says nothing: nobody knows the nodes yet."""
ARRAY_LIMIT = 1000
"""Cells of one array; as many as Slurm takes where its administrator has not said otherwise."""
PROCESS_BYTES = 2 * 2**30
"""What a process needs beside the estimate of a run: Python, PyTorch, rows and tokens."""


def parameters(
    options: SlurmOptions, settings: RunSettings, jobs: Sequence[CellJob], *, at_once: int | None
) -> tuple[dict[str, Any], RunSettings]:
    """What submitit is to ask of Slurm for each job, and the settings with the threads that go with it."""
    extra: dict[str, str | bool] = {key: value or True for key, value in options.extra.items()}
    width = settings.gpus_per_run
    given = int(options.extra.get("cpus-per-task", 0))
    extra.pop("cpus-per-task", None)
    threads = settings.threads or (max(1, given // width) if given else THREADS)
    cpus = given or threads * width
    asked: dict[str, Any] = {
        "timeout_min": options.minutes,
        "cpus_per_task": cpus,
        "slurm_partition": options.partition,
        "slurm_account": options.account,
        # Since Slurm 22.05 a step does not take the job's cores over by itself.
        "slurm_srun_args": [f"--cpus-per-task={cpus}"],
        "slurm_array_parallelism": min(at_once or ARRAY_LIMIT, ARRAY_LIMIT),
    }
    if is_for_gpu(settings):
        if not any(key.startswith("gpus") or key == "gres" for key in extra):
            asked["gpus_per_node"] = width
    elif not any(key.startswith("mem") for key in extra):
        known = [job.memory_bytes for job in jobs if job.memory_bytes is not None]
        if known:
            asked["mem_gb"] = -(-(max(known) * width * 5 // 4 + PROCESS_BYTES) // 2**30)
    if "no-requeue" not in extra:
        extra["requeue"] = True
    asked["slurm_additional_parameters"] = extra
    return asked, replace(settings, threads=threads)


def is_for_gpu(settings: RunSettings) -> bool:
    """Whether runs are to have a GPU: where jobs are submitted from, only --device can say so.

    Raises InputError for one GPU among several."""
    refuse_numbered_gpu(settings.device, "Slurm")
    return settings.device == "cuda"
