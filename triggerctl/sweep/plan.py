"""A sweep on paper: every cell checked as far as that goes without a model, and what would become of each.
Imports no torch, so that a sweep with nothing left to do is quick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from triggerctl.config.load import LoadedConfig, load_config
from triggerctl.config.models import ExperimentConfig
from triggerctl.errors import InputError, Problem
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.sweep.grid import Cell, Parameter, cells, prepare_cell
from triggerctl.training.decision import Action
from triggerctl.training.plan import plan_run

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell that was checked. `loaded` is its configuration, `readable` the same with paths that are right
    already, before the cell's folder is there; `finished`: the results that make it unnecessary to train;
    `same_as`: the earlier cell with the same hash, None for most."""

    cell: Cell
    loaded: LoadedConfig
    readable: LoadedConfig
    hash: str
    action: Action
    reason: str
    warnings: tuple[str, ...]
    finished: Path | None = None
    same_as: Cell | None = None

    @property
    def folder(self) -> ExperimentFolder:
        """The run's folder."""
        return self.cell.folder

    @property
    def config(self) -> ExperimentConfig:
        """The run's configuration."""
        return self.loaded.config

    @property
    def is_to_train(self) -> bool:
        """Whether the sweep has work here."""
        return self.same_as is None and self.action in (Action.RUN, Action.RESUME)


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep that was checked and may start. `fresh` is not among its options: a sweep does what is
    missing."""

    folder: ExperimentFolder
    planned: tuple[PlannedCell, ...]
    seeds: tuple[int, ...]
    strategies: tuple[str, ...]
    parameters: tuple[Parameter, ...] = ()
    dont_overwrite: bool = False
    command: tuple[str, ...] = field(default=())

    def name(self, cell: Cell) -> str:
        """How a cell is called: its folder below the experiment's."""
        return cell.folder.path.relative_to(self.folder.path).as_posix()


def plan_sweep(
    folder: ExperimentFolder,
    loaded: LoadedConfig,
    *,
    seeds: Sequence[int],
    strategies: Sequence[str],
    parameters: Sequence[Parameter] = (),
    dont_overwrite: bool = False,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Sweep:
    """Check every cell's configuration and data and say what would become of it; nothing is written.

    Raises InputError that holds the problems of all cells that can't be run."""
    planned: list[PlannedCell] = []
    problems: list[Problem] = []
    first_with: dict[str, Cell] = {}
    for cell in cells(folder, loaded, seeds, strategies, parameters):
        try:
            # First as overrides of the parent's file, whose lines an error can name. Until the cell's folder
            # is there, no relative path can start in it, and the parent's own paths are looked up instead.
            checked = load_config(loaded.path, overrides=cell.overrides)
            own = prepare_cell(folder, loaded, cell)
            seen = own if cell.folder.path.is_dir() else checked
            plan = plan_run(cell.folder, seen, dont_overwrite=dont_overwrite, progress=progress)
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
            continue
        same_as = first_with.setdefault(plan.hash, cell)
        planned.append(
            PlannedCell(
                cell=cell,
                loaded=own,
                readable=seen,
                hash=plan.hash,
                action=plan.action,
                reason=plan.reason,
                warnings=plan.warnings,
                finished=plan.finished,
                same_as=same_as if same_as is not cell else None,
            )
        )
    raise_problems(problems)
    names = tuple(dict.fromkeys(p.cell.strategy for p in planned if p.cell.strategy is not None))
    swept = tuple(dict.fromkeys(p.cell.seed for p in planned))
    return Sweep(folder, tuple(planned), swept, names, tuple(parameters), dont_overwrite, tuple(command))


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise InputError with all of them, where there are any."""
    if problems:
        first, *others = problems
        raise InputError(first.what, where=first.where, why=first.why, mend=first.mend, also=tuple(others))
