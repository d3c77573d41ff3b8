"""What the same command does in a run's folder now, by what lies there: train, go on, or leave alone what is
finished."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from triggerctl.config.models import ExperimentConfig
from triggerctl.errors import InputError
from triggerctl.experiment.fingerprint import differences
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.state import read_state
from triggerctl.experiment.stored_results import StoredResults, read_results


class Action(StrEnum):
    """What the same command does in this folder now."""

    RUN = "run"
    RESUME = "resume"
    SKIP = "skip"
    BLOCKED = "blocked"


def decide(
    folder: ExperimentFolder,
    config: ExperimentConfig,
    run_hash: str,
    *,
    fresh: bool = False,
    dont_overwrite: bool = False,
) -> tuple[Action, str, Path | None]:
    """What the command does in this folder now, one line that says why, and the finished results it goes
    by."""
    stored = {path: _read(path) for path in folder.finished()}
    newest = next(iter(stored), None)
    same = [
        path for path, results in stored.items() if results and results.ours and results.ours.hash == run_hash
    ]
    if fresh:
        return Action.RUN, "trained anew, as --fresh asks", None
    if same and not dont_overwrite and _is_begun_anew(folder, run_hash, same[0]):
        return (
            Action.RESUME,
            f"goes on from its last checkpoint, beside {same[0].name}, which is finished",
            None,
        )
    if same:
        more = f"; older results of the same hash: {', '.join(p.name for p in same[1:])}" if same[1:] else ""
        return Action.SKIP, f"finished already with this very configuration, in {same[0].name}{more}", same[0]
    if newest is not None and dont_overwrite:
        why = _difference(stored[newest], config)
        return (
            Action.BLOCKED,
            f"left alone: {newest.name} holds results of another configuration ({why})",
            newest,
        )
    if any(folder.checkpoint(run_hash).glob("step-*")):
        return Action.RESUME, "goes on from its last checkpoint", None
    if newest is not None:
        why = _difference(stored[newest], config)
        return Action.RUN, f"trained beside {newest.name}, results of another configuration ({why})", None
    return Action.RUN, "not trained yet", None


def _is_begun_anew(folder: ExperimentFolder, run_hash: str, finished: Path) -> bool:
    """Whether the run was begun once more since it was finished, as --fresh does, and stopped on the way."""
    try:
        state = read_state(folder.state)
    except InputError:  # finished results stand without it
        return False
    if state is None or state.hash != run_hash or state.status == "done" or state.results is None:
        return False
    # Results are named by the time at which they were begun.
    is_later = state.results > finished.name
    is_whole = (folder.results / state.results / "results.json").exists()
    return is_later and not is_whole and any(folder.checkpoint(run_hash).glob("step-*"))


def _read(results: Path) -> StoredResults | None:
    """Results that can't be read are no reason not to train; `report` and `status` name them."""
    try:
        return read_results(results)
    except InputError:
        return None


def _difference(stored: StoredResults | None, config: ExperimentConfig) -> str:
    found = differences(stored.requested, config) if stored else []
    named = [f"{key.removeprefix('finetune_config.')} {old!r} → {new!r}" for key, old, new in found[:4]]
    if len(found) > 4:
        named.append(f"{len(found) - 4} more")
    return ", ".join(named) if named else "its data or model has changed"
