"""Runs as jobs of a Slurm cluster, submitted through submitit: an array for the cells that are missing, a
task for each. Slurm decides when and where they run, and queues them again after a pre-emption, a node's
death or the end of their time; each then goes on from its last checkpoint. The folders must be seen from the
nodes under the same path.

What was submitted stands in the experiment's folder under `sweeps/slurm/`, a file for each array, with the
jobs' own output beside it. So a cell that is queued is not submitted again; and if it were, its claim would
have it trained once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from triggerctl.errors import BusyError, InputError, InterruptedRunError
from triggerctl.experiment.claim import claim
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.sweep.cell import CellJob, CellOutcome, Outcome, RunSettings
from triggerctl.sweep.check import Checked, check_cells
from triggerctl.sweep.launchers.base import TICK_SECONDS
from triggerctl.sweep.launchers.slurm_cell import SlurmCell
from triggerctl.sweep.launchers.slurm_jobs import (
    Submitted,
    cell_key,
    job_name,
    make_folder_for_jobs,
    outcome_of,
    queued_in_slurm,
    read_records,
    state_since,
    write_record,
)
from triggerctl.sweep.launchers.slurm_options import SlurmOptions
from triggerctl.sweep.launchers.slurm_resources import ARRAY_LIMIT, is_for_gpu, parameters

LOOK_SECONDS = 10.0
"""Between two questions to Slurm for its queue, of which it bears few."""
REQUEUES = 50
"""How often a job whose time was up is queued again."""
SUBMIT_SECONDS = 60.0
"""How long another process that is submitting jobs of the same experiment is waited for."""


class SlurmLauncher:
    """Submits, and returns; or follows the jobs until they have ended.

    folder: the experiment's.
    jobs:   how many of them may run at once, None for as many as Slurm lets.
    wait:   whether to follow.
    cluster: submitit's name for what the jobs are given to; "local" makes them processes of this machine, for
             trying things out."""

    def __init__(
        self,
        folder: ExperimentFolder,
        options: SlurmOptions,
        *,
        jobs: int | None = None,
        wait: bool = False,
        cluster: str = "slurm",
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._folder = folder
        self._options = options
        self._asked = jobs
        self._wait = wait
        self._cluster = cluster
        self._look_seconds = look_seconds
        self._own: dict[str, Any] = {}

    def __enter__(self) -> SlurmLauncher:
        """Raises InputError where submitit is not installed, or there is no Slurm here."""
        try:
            import submitit  # noqa: F401 - only whether it is there
        except ImportError as error:
            raise InputError(
                "submitit is not installed", where="--launcher slurm", mend="pip install 'triggerctl[slurm]'"
            ) from error
        self._executor()
        return self

    def __exit__(self, *error: object) -> None:
        """Submitted jobs are Slurm's and go on."""

    def check(self, jobs: Sequence[CellJob], settings: RunSettings, *, stop: threading.Event) -> Checked:
        """In this process. A machine to submit from seldom has a GPU: what is for one is checked here as far
        as a CPU can, quantised models apart, and has no estimate of memory.

        Raises InputError for a device that is for Slurm to choose, InterruptedRunError once `stop` is set."""
        for_gpu = is_for_gpu(settings)
        checked = [job for job in jobs if not (for_gpu and _is_quantised(job))]
        if not stop.is_set():
            found = check_cells(checked, replace(settings, device="cpu"))
        if stop.is_set():
            raise InterruptedRunError(
                "stopped before any job was submitted", mend="the same command begins again"
            )
        return Checked(problems=found.problems, kind="cuda") if for_gpu else found

    def launch(
        self,
        jobs: Sequence[CellJob],
        settings: RunSettings,
        *,
        began: Callable[[CellJob], None],
        ended: Callable[[CellOutcome], None],
        note: Callable[[str], None],
        tick: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        """Submit what is not queued already.

        Without `wait` every cell ends as submitted. With it, what becomes of each is told when its job has
        left the queue; once `stop` is set the jobs are left to go on.
        Raises InputError where Slurm takes the jobs not at all, InterruptedRunError where `stop` is set
        before all are submitted."""
        folder = make_folder_for_jobs(self._folder)
        with _alone(folder, tick, stop):
            records = read_records(folder)
            recorded = {job.folder: records.get(cell_key(self._folder, job)) for job in jobs}
            ids = [each.id for each in recorded.values() if each is not None]
            # Where Slurm can't be asked: a job too many finds its run claimed or finished.
            queued = (self._queued(ids) if ids else None) or set()
            followed = {
                job.folder: each
                for job in jobs
                if (each := recorded[job.folder]) is not None and each.id in queued
            }
            missing = [job for job in jobs if job.folder not in followed]
            for place in range(0, len(missing), ARRAY_LIMIT):
                if stop.is_set():
                    raise InterruptedRunError(f"stopped: {place} of {len(missing)} jobs were submitted")
                part = missing[place : place + ARRAY_LIMIT]
                followed.update(self._submit(folder, part, settings, note))
        already = [job for job in jobs if job not in missing]
        if already:
            names = ", ".join(sorted(followed[job.folder].id for job in already))
            note(f"queued or running already, not submitted again: {names}")
        if self._wait:
            self._follow(folder, jobs, followed, began=began, ended=ended, note=note, tick=tick, stop=stop)
            return
        for job in jobs:
            submitted = followed[job.folder]
            how = "is submitted" if job in missing else "was queued before"
            ended(CellOutcome(job.folder, Outcome.SUBMITTED, f"job {submitted.id} {how}"))

    def _executor(self) -> Any:
        """submitit's executor, its files in the experiment's folder. Raises InputError where there is no
        Slurm."""
        import submitit

        try:
            return submitit.AutoExecutor(
                folder=self._folder.sweeps / "slurm", cluster=self._cluster, slurm_max_num_timeout=REQUEUES
            )
        except RuntimeError as error:
            raise InputError(
                "this machine has no Slurm",
                where="--launcher slurm",
                why=str(error),
                mend="start the sweep on a node from which `sbatch` works",
            ) from error

    def _submit(
        self, folder: Path, jobs: Sequence[CellJob], settings: RunSettings, note: Callable[[str], None]
    ) -> dict[ExperimentFolder, Submitted]:
        """Submit these cells as one array, and write down what was submitted."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        executor = self._executor()
        asked, settings = parameters(self._options, settings, jobs, at_once=self._asked)
        executor.update_parameters(name=job_name(self._folder), **asked)
        try:
            with executor.batch():
                submitted = [executor.submit(SlurmCell(job, settings)) for job in jobs]
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            raise InputError(
                "Slurm did not take the jobs",
                where="--launcher slurm",
                why=" ".join(str(error).split())[-500:] or None,
                mend="see the --slurm options, and `sinfo` for what there is",
            ) from error
        ids = [str(each.job_id) for each in submitted]
        self._own.update(zip(ids, submitted, strict=True))
        found = write_record(folder, self._folder, dict(zip(ids, jobs, strict=True)))
        note(_told(ids, folder))
        return found

    def _queued(self, ids: Collection[str]) -> set[str] | None:
        """Which of these jobs wait or run; None where that can't be found out."""
        if self._cluster != "slurm":
            return {each for each in ids if each in self._own and not self._own[each].done()}
        return queued_in_slurm(ids, job_name(self._folder))

    def _follow(
        self,
        folder: Path,
        jobs: Sequence[CellJob],
        submitted: Mapping[ExperimentFolder, Submitted],
        *,
        began: Callable[[CellJob], None],
        ended: Callable[[CellOutcome], None],
        note: Callable[[str], None],
        tick: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        left = {job.folder: job for job in jobs}
        begun: set[ExperimentFolder] = set()
        looked = 0.0
        while left and not stop.is_set():
            gone: set[str] = set()
            if time.monotonic() - looked > self._look_seconds:
                ids = {submitted[each].id for each in left}
                queued = self._queued(ids)
                gone = ids - queued if queued is not None else set()
                looked = time.monotonic()
            for job in list(left.values()):
                mine = submitted[job.folder]
                state = state_since(job, mine)
                if state is not None and state.status == "running" and job.folder not in begun:
                    begun.add(job.folder)
                    began(job)
                found = outcome_of(job, state, mine, folder, gone=mine.id in gone)
                if found is not None:
                    del left[job.folder]
                    ended(found)
            tick()
            time.sleep(TICK_SECONDS)
        if left:
            those = sorted(submitted[each].id for each in left)
            note(f"{len(those)} jobs go on in Slurm; {_cancel(those)}")
            for job in left.values():
                how = f"job {submitted[job.folder].id} goes on"
                ended(CellOutcome(job.folder, Outcome.SUBMITTED, how))


def _is_quantised(job: CellJob) -> bool:
    options = job.loaded.config.finetune_config
    return options.load_in_8bit or options.load_in_4bit


def _told(ids: Sequence[str], folder: Path) -> str:
    what = f"{len(ids)} runs as job array" if len(ids) > 1 else "1 run as job"
    return f"{what} {ids[0].partition('_')[0]}; {_cancel(ids)}; output in {folder}"


def _cancel(ids: Sequence[str]) -> str:
    arrays = list(dict.fromkeys(each.partition("_")[0] for each in ids))
    return f"`scancel {' '.join(arrays)}` cancels"


@contextlib.contextmanager
def _alone(folder: Path, tick: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    """The right to submit jobs of an experiment, held by one process at a time, so that two sweeps that are
    started together see each other's jobs. Raises BusyError where another one keeps it for a minute."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(claim(folder))
                break
            except BusyError:
                if stop.is_set() or time.monotonic() - began > SUBMIT_SECONDS:
                    raise
            tick()
            time.sleep(TICK_SECONDS)
        yield
