"""Where everything of an experiment lies, and which of its folders are runs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from triggerctl.experiment.atomic import disk_errors
from triggerctl.experiment.cell_names import CELL_PREFIX, SEED_PREFIX, cell_folder_name
from triggerctl.experiment.claim import LOCK_NAME
from triggerctl.experiment.time_names import age_key, new_timestamped_folder


@dataclass(frozen=True, slots=True)
class ExperimentFolder:
    """An experiment's folder, or a run's: each run of a sweep is an experiment folder of its own."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.absolute().name

    @property
    def experiment(self) -> Path:
        """The folder of the experiment that this run belongs to: of a cell the one that was swept."""
        path = self.path.absolute()
        for prefix in (SEED_PREFIX, CELL_PREFIX):
            above = path.parent
            within = above.name.startswith(CELL_PREFIX) or (above / "config.json").is_file()
            if path.name.startswith(prefix) and within:
                path = above
        return path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def sweep(self) -> Path:
        """sweep.json; the study's name for it where only that is there."""
        ours, theirs = self.path / "sweep.json", self.path / "proxy_strategy_params.json"
        return theirs if theirs.exists() and not ours.exists() else ours

    @property
    def lock(self) -> Path:
        return self.path / LOCK_NAME

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    @property
    def results(self) -> Path:
        return self.path / "results"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def sweeps(self) -> Path:
        return self.path / "sweeps"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def checkpoint(self, run_hash: str) -> Path:
        """The checkpoints of the unfinished run with this hash."""
        return self.checkpoints / run_hash

    def foreign_checkpoints(self, run_hash: str) -> list[str]:
        """Hashes of other unfinished runs whose checkpoints lie here; they are named to the user, never
        touched."""
        return [path.name for path in visible_folders(self.checkpoints) if path.name != run_hash]

    def seed(self, seed: int) -> ExperimentFolder:
        return ExperimentFolder(self.path / f"{SEED_PREFIX}{seed}")

    def cell(self, strategy: str, overrides: Mapping[str, object]) -> ExperimentFolder:
        return ExperimentFolder(self.path / cell_folder_name(strategy, overrides))

    def new_results(self, now: datetime, *, announce: Callable[[Path], None] = lambda folder: None) -> Path:
        """Create a results folder named by the time, `_2` and on when that name is taken, and return it. Of
        many that ask at once each gets a folder of its own.

        announce: called just before the folder is made, so that what is written down of it outlives a kill in
        between."""
        return new_timestamped_folder(self.results, now, announce)

    def finished(self) -> list[Path]:
        """The folders under `results/` that hold a results.json, newest first."""
        done = [path for path in visible_folders(self.results) if (path / "results.json").is_file()]
        return sorted(done, key=lambda path: age_key(path.name), reverse=True)


@dataclass(frozen=True, slots=True)
class RunListing:
    """A run folder and what lies in it, from one look: `files` by name, and the folders under `results/`,
    newest first, finished or not."""

    folder: ExperimentFolder
    files: frozenset[str]
    results: tuple[str, ...]


def walk_runs(folder: ExperimentFolder) -> list[ExperimentFolder]:
    """Every run folder of an experiment, in a fixed order: itself, its seeds, its cells and their seeds.

    A folder counts once anything was run in it, or when it has a config.json and no runs below it (it is then
    a run still to come). Phases of the study's runs (`positive_proxy/`, `negative_proxy/`) are no runs.
    """
    return [run.folder for run in list_runs(folder)]


def list_runs(folder: ExperimentFolder) -> list[RunListing]:
    """The same run folders with what lies in them. Each folder is looked into once: an experiment may have
    thousands of runs, on a file system where every look is a request to another machine."""
    files, folders = _inside(folder.path)
    inner = [name for name in folders if name.startswith((SEED_PREFIX, CELL_PREFIX))]
    below = [
        run
        for name in sorted(inner, key=_natural)
        if _may_hold_runs(folder, name)
        for run in list_runs(ExperimentFolder(folder.path / name))
    ]
    itself = _listing(folder, files, folders)
    ran = "state.json" in files or "checkpoints" in folders or bool(itself.results)
    return [itself, *below] if ran or ("config.json" in files and not below) else below


def list_run(folder: ExperimentFolder) -> RunListing:
    """What lies in one run folder, be anything in it or not."""
    return _listing(folder, *_inside(folder.path))


def _listing(folder: ExperimentFolder, files: frozenset[str], folders: Collection[str]) -> RunListing:
    results = tuple(_inside(f"{folder.path}/results")[1]) if "results" in folders else ()
    if len(results) > 1:
        results = tuple(sorted(sorted(results, key=_natural), key=age_key, reverse=True))
    return RunListing(folder, files, results)


def _may_hold_runs(folder: ExperimentFolder, name: str) -> bool:
    if name.startswith(SEED_PREFIX):
        return True
    return name.startswith(CELL_PREFIX) and not folder.name.startswith((CELL_PREFIX, SEED_PREFIX))


def _inside(path: str | Path) -> tuple[frozenset[str], frozenset[str]]:
    """The files in a folder, and the visible folders; none when it is not there. Raises InputError for one
    that may not be read."""
    files, folders = [], []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if not entry.is_dir():
                    files.append(name)
                elif name[0] != ".":
                    folders.append(name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        with disk_errors(Path(path), "read"):
            raise
    return frozenset(files), frozenset(folders)


def visible_folders(path: Path) -> list[Path]:
    """The visible folders in a folder, numbers within names in their numerical order; none when it is not
    there."""
    return [path / name for name in sorted(_inside(path)[1], key=_natural)]


def _natural(name: str) -> list[tuple[int, int, str]]:
    pieces = re.split(r"(\d+)", name)
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces if piece]
