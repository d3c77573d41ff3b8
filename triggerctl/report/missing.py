"""What a report lacks: runs that failed, are under way or were never begun, each with what is known of it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence

from triggerctl import disk
from triggerctl.errors import TriggerctlError
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.state import run_status
from triggerctl.report.findings import Finding
from triggerctl.report.wording import listed

AT_MOST = 4
"""Runs of one kind that are named one by one."""


def missing_runs(
    name: str, experiment: ExperimentFolder, unfinished: Sequence[ExperimentFolder], known: frozenset[str]
) -> Iterator[Finding]:
    """Findings on the runs without finished results of one experiment.

    name:       the experiment's, as the report calls it.
    unfinished: run folders that hold no finished results.
    known:      every run folder there is, relative to the experiment.
    """
    by_state: defaultdict[str, list[str]] = defaultdict(list)
    for run in unfinished:
        words, error = _what_became(run)
        where = _within(run, experiment)
        if error is not None:
            yield Finding(kind="failed", text=f"{name}: {where} failed: {error}", runs=(where,))
        else:
            by_state[words].append(where)
    begun_nowhere = [folder for folder in _planned(experiment) if folder not in known]
    if begun_nowhere:
        by_state["not begun"] += begun_nowhere
    for words, folders in by_state.items():
        runs = "1 run has" if len(folders) == 1 else f"{len(folders)} runs have"
        yield Finding(
            kind="unfinished",
            text=f"{name}: {runs} no finished results ({words}): {listed(folders, AT_MOST)}.",
            runs=tuple(folders),
        )


def _what_became(run: ExperimentFolder) -> tuple[str, str | None]:
    """The state in a word, and of a failed run why, as one line."""
    try:
        state, shown = run_status(run.path)
    except TriggerctlError:
        return "state.json can't be read", None
    if shown != "failed":
        return shown, None
    lines = (state.error or "the reason is not known").strip().splitlines()
    return shown, f"{' '.join(line.strip() for line in lines if line.strip()).rstrip('.')}."


def _planned(experiment: ExperimentFolder) -> list[str]:
    """The run folders that sweeps of the experiment were to fill, each once, as far as their records tell. A
    cell that is the same run as another has no folder of its own."""
    folders: dict[str, None] = {}
    for record in sorted(experiment.sweeps.glob("*.json")):
        try:
            cells = json.loads(disk.read_bytes(record))["cells"]
            folders |= {str(cell["folder"]): None for cell in cells if cell.get("outcome") != "same"}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # A record that can't be read takes no run away; the runs themselves are what counts.
            continue
    return list(folders)


def _within(run: ExperimentFolder, experiment: ExperimentFolder) -> str:
    inner = run.path.relative_to(experiment.path).as_posix()
    return "its own run" if inner == "." else inner
