"""Which finished results of an experiment count: of each run folder and hash the newest; older ones of the
same hash are repetitions, and other hashes are other runs."""

from __future__ import annotations

from dataclasses import dataclass

from triggerctl.errors import InputError
from triggerctl.experiment.fingerprint import published_key
from triggerctl.experiment.layout import ExperimentFolder, walk_runs
from triggerctl.experiment.results import StoredResults, read_results


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """Finished results in the run folder that holds them. `hash` is the run's, or for the study's results a
    key made of their stored configuration; `older` are finished results of the same folder and hash, newest
    first."""

    folder: ExperimentFolder
    hash: str
    results: StoredResults
    older: tuple[StoredResults, ...] = ()


@dataclass(frozen=True, slots=True)
class FinishedRuns:
    """The finished runs of an experiment, folders in order, newest first within one; `unreadable` says, one
    sentence each, which results had to be left out and why."""

    runs: tuple[FinishedRun, ...]
    unreadable: tuple[str, ...] = ()


def finished_in(folder: ExperimentFolder) -> FinishedRuns:
    """The finished runs of one run folder, not below it."""
    by_hash: dict[str, list[StoredResults]] = {}
    unreadable = []
    for path in folder.finished():
        try:
            stored = read_results(path)
        except InputError as error:
            unreadable.append(str(error))
            continue
        by_hash.setdefault(results_hash(stored), []).append(stored)
    runs = (FinishedRun(folder, key, found[0], tuple(found[1:])) for key, found in by_hash.items())
    return FinishedRuns(tuple(runs), tuple(unreadable))


def finished_runs(experiment: ExperimentFolder) -> FinishedRuns:
    """The finished runs of an experiment: its own, its seeds', its cells'."""
    each = [finished_in(folder) for folder in walk_runs(experiment)]
    return FinishedRuns(
        tuple(run for part in each for run in part.runs),
        tuple(said for part in each for said in part.unreadable),
    )


def results_hash(stored: StoredResults) -> str:
    """The hash of the run that made these results."""
    return stored.ours.hash if stored.ours else published_key(stored.experiment_config)
