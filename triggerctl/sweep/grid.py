"""Which runs a sweep consists of: strategies with their overrides, times seeds, each in a folder of its
own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from triggerctl.config import jsonc
from triggerctl.config.load import LoadedConfig, parse_config
from triggerctl.config.overrides import Override, make_override
from triggerctl.config.paths import rebase_paths
from triggerctl.errors import InputError
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.strategies import canonical_name

ORIGIN = "sweep cell"


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep. `strategy` is None where only seeds are swept; `overrides` hold strategy and seed
    too."""

    folder: ExperimentFolder
    strategy: str | None
    seed: int
    overrides: tuple[Override, ...]


@dataclass(frozen=True, slots=True)
class _Variant:
    """A strategy and one set of values for it; `where` is how errors point at it."""

    strategy: str
    values: Mapping[str, object]
    where: str


def cells(
    folder: ExperimentFolder, loaded: LoadedConfig, seeds: Sequence[int], strategies: Sequence[str]
) -> list[Cell]:
    """The runs for these seeds and strategies, in the order they are trained: seed by seed within a strategy.

    Without strategies those of sweep.json are taken; where there is none either, the configuration's own, in
    folders named by the seed alone. Without seeds: the configuration's. Of sweep.json, a strategy that is
    picked brings its overrides; one that is not in it runs with the configuration's values.
    Raises InputError for an unknown strategy, a broken sweep.json, and when there is nothing to sweep.
    """
    listed = _listed(folder.sweep)
    chosen = _chosen(listed, strategies)
    if not chosen and not seeds:
        raise InputError(
            "there is nothing to sweep",
            where=str(folder.path),
            why="neither --seeds nor --strategies is given, and there is no sweep.json",
            mend="triggerctl sweep EXPERIMENT --seeds 1 5 42 --strategies naive,kl",
        )
    each_seed = list(seeds) or [loaded.config.seed]
    if not chosen:
        return [Cell(folder.seed(seed), None, seed, (_seed(seed),)) for seed in each_seed]
    return [_cell(folder, variant, seed) for variant in chosen for seed in each_seed]


def prepare_cell(folder: ExperimentFolder, loaded: LoadedConfig, cell: Cell) -> LoadedConfig:
    """A cell's configuration: what was given to its parent, with paths that stay right, and the cell's own
    values.

    Raises InputError when the values don't hold together."""
    given = {**loaded.given, "experiment_name": loaded.config.experiment_name}
    moved = rebase_paths(given, folder.path, cell.folder.path)
    return parse_config(moved, path=cell.folder.config, overrides=cell.overrides)


def _cell(folder: ExperimentFolder, variant: _Variant, seed: int) -> Cell:
    own = tuple(
        make_override(name, value, origin=ORIGIN, where=variant.where)
        for name, value in variant.values.items()
    )
    strategy = Override(("proxy_strategy",), variant.strategy, ORIGIN, variant.where)
    place = folder.cell(variant.strategy, variant.values).seed(seed)
    return Cell(place, variant.strategy, seed, (*own, strategy, _seed(seed)))


def _seed(seed: int) -> Override:
    return Override(("seed",), seed, ORIGIN, f"--seeds {seed}")


def _chosen(listed: Sequence[_Variant], strategies: Sequence[str]) -> list[_Variant]:
    if not strategies:
        return list(listed)
    chosen: list[_Variant] = []
    for name in dict.fromkeys(canonical_name(given) for given in strategies):
        own = [variant for variant in listed if variant.strategy == name]
        chosen += own or [_Variant(name, {}, f"--strategies {name}")]
    return chosen


def _listed(path: Path) -> list[_Variant]:
    """What sweep.json lists: {strategy: [overrides, …]}; none where there is no such file."""
    if not path.is_file():
        return []
    document = jsonc.read(path)
    if not isinstance(document.value, Mapping):
        raise _broken(path, 1, "it is no object")
    variants = []
    for name, entries in document.value.items():
        strategy = canonical_name(name)
        if not isinstance(entries, list):
            raise _broken(path, document.line((name,)), f"{name} does not hold a list")
        for index, values in enumerate(entries or [{}]):
            line = document.line((name, index))
            if not isinstance(values, Mapping):
                raise _broken(path, line, f"item {index + 1} of {name} is no object")
            variants.append(_Variant(strategy, values, f"{path}:{line}, {name}"))
    return variants


def _broken(path: Path, line: int, what: str) -> InputError:
    return InputError(
        "this file does not list a sweep",
        where=f"{path}:{line}",
        why=what,
        mend='write {"strategy": [{"key": value, …}, …], …}; [] or [{}] runs it with the config\'s values',
    )
