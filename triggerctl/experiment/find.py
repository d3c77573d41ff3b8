"""How experiments are found: by name or path, or all that lie under a root."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from triggerctl.errors import InputError
from triggerctl.experiment.layout import ExperimentFolder, visible_folders, walk_runs


def experiments_root(option: Path | None = None) -> Path:
    """Where experiments lie: the `--root` option, else `TRIGGERCTL_ROOT`, else `experiments` in the working
    folder."""
    if option is not None:
        return option.expanduser()
    return Path(os.environ.get("TRIGGERCTL_ROOT") or "experiments").expanduser()


def is_path(name: str) -> bool:
    """Whether what was typed is a place, and not the name of an experiment under the root."""
    return name.startswith((".", "~")) or Path(name).is_absolute()


def find_experiment(name: str, root: Path, *, config_needed: bool = True) -> ExperimentFolder:
    """The experiment called `name`: a folder under the root, or a path to one (or to its config.json). What
    can only be meant as a path is not looked for under the root first.

    config_needed: False also finds a folder that holds runs and no config.json of its own, for reading.
    Raises InputError, with the nearest names there are, when there is none.
    """
    path = Path(name).expanduser()
    places = [path, root / path] if is_path(name) else [root / path, path]
    if path.name == "config.json" and path.is_file():
        places = [path.parent]
    for candidate in places:
        folder = ExperimentFolder(candidate)
        if folder.config.is_file() or (not config_needed and candidate.is_dir() and walk_runs(folder)):
            return folder
    raise _unknown(name, path, root)


def list_experiments(root: Path, *, depth: int = 3) -> list[ExperimentFolder]:
    """Every experiment under the root, by name; folders that only group others are looked into, `depth`
    deep."""
    found = []
    for path in visible_folders(root) if depth > 0 else []:
        folder = ExperimentFolder(path)
        if folder.config.is_file() or walk_runs(folder):
            found.append(folder)
        else:
            found.extend(list_experiments(path, depth=depth - 1))
    return found


def _unknown(name: str, path: Path, root: Path) -> InputError:
    for candidate in (root / path, path):
        if candidate.is_dir():
            return InputError(
                f"{name} is a folder without a config.json",
                where=str(candidate),
                mend=f"write one there, or begin with `triggerctl init {name} --template quickstart`",
            )
    known = [folder.path.relative_to(root).as_posix() for folder in list_experiments(root)]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    start = f"`triggerctl init {name} --template quickstart` begins it"
    if near:
        return InputError(
            f"no experiment {name}",
            where=f"looked in {root} and for a path of that name",
            mend=f"did you mean {' or '.join(near)}? Else {start}",
        )
    there = (
        f"there are: {', '.join(known[:8])}{' …' if len(known) > 8 else ''}" if known else "it holds none yet"
    )
    return InputError(
        f"no experiment {name}",
        where=f"looked in {root} and for a path of that name",
        why=f"{root}: {there}",
        mend=f"{start}; --root DIR looks elsewhere",
    )
