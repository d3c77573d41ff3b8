"""Which runs a sweep consists of: strategies with their overrides, times parameters, times seeds, each in a
folder of its own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from triggerctl.config import jsonc
from triggerctl.config.load import LoadedConfig, parse_config
from triggerctl.config.overrides import Override, make_override, parse_override
from triggerctl.config.paths import rebase_paths, without_secrets
from triggerctl.errors import InputError
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.strategies import canonical_name

ORIGIN = "sweep cell"
PARAM = "--param"
_OPTIONS_OF_THEIR_OWN = {"seed": "--seeds", "proxy_strategy": "--strategies"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep. `strategy` is None where only seeds are swept; `overrides` hold strategy and seed
    too."""

    folder: ExperimentFolder
    strategy: str | None
    seed: int
    overrides: tuple[Override, ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A key and the values it takes in a sweep, one after the other."""

    key: str
    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Variant:
    """A strategy and one set of values for it; `where` is how errors point at it. Of `chosen`, what the
    command line says, errors point at the option instead."""

    strategy: str
    values: Mapping[str, object]
    where: str
    chosen: Mapping[str, object] = field(default_factory=dict)


def parse_parameter(text: str) -> Parameter:
    """Read `key=v1,v2,…`. A comma within brackets, braces or quotes belongs to its value; key and values are
    read as those of --set.

    Raises InputError for a text without values or with an empty one, an unknown key, and one that has an
    option of its own."""
    name, equals, values = text.partition("=")
    where = f"{PARAM} {without_secrets(text)}"
    if not equals or not values.strip():
        raise InputError(
            f"{PARAM} takes key=value,value,…", where=where, mend=f"such as {PARAM} beta_kl=0.1,1,10"
        )
    parts = _apart(values)
    if not all(parts):
        raise InputError(
            f"value {parts.index('') + 1} of {len(parts)} is missing",
            where=where,
            why="there is nothing before or after a comma",
            mend='drop the comma; an empty text is written ""',
        )
    read = [parse_override(f"{name}={value}", option=PARAM) for value in parts]
    key = ".".join(read[0].key)
    if key in _OPTIONS_OF_THEIR_OWN:
        option = _OPTIONS_OF_THEIR_OWN[key]
        raise InputError(
            f"{key} has an option of its own", where=where, mend=f"{option} {values.replace(',', ' ')}"
        )
    return Parameter(key, tuple(override.value for override in read))


def _apart(values: str) -> list[str]:
    """The text cut at the commas that stand in no bracket and no string."""
    parts, depth, quoted, escaped = [""], 0, False, False
    for sign in values:
        if sign == "," and not depth and not quoted:
            parts.append("")
            continue
        parts[-1] += sign
        if sign == '"' and not escaped:
            quoted = not quoted
        elif not quoted:
            depth += (sign in "[{") - (sign in "]}")
        escaped = sign == "\\" and not escaped
    return [part.strip() for part in parts]


def cells(
    folder: ExperimentFolder,
    loaded: LoadedConfig,
    seeds: Sequence[int],
    strategies: Sequence[str],
    parameters: Sequence[Parameter] = (),
) -> list[Cell]:
    """The runs for these seeds, strategies and parameters, each once, in the order they are trained: seed by
    seed within a strategy and its values.

    Without strategies those of sweep.json are taken; where there is none either, the configuration's own, in
    folders named by the seed alone if there are no parameters. Without seeds: the configuration's. Of
    sweep.json, a strategy that is picked brings its overrides; one that is not in it runs with the
    configuration's values. Parameters multiply, and go before what sweep.json says.
    Raises InputError for an unknown strategy, a broken sweep.json, when there is nothing to sweep, and where
    two different cells would share a folder.
    """
    listed = _listed(folder.sweep)
    chosen = _chosen(listed, strategies)
    if parameters:
        own = [_Variant(canonical_name(loaded.config.proxy_strategy), {}, str(loaded.path))]
        chosen = [_with(variant, values) for variant in chosen or own for values in _product(parameters)]
    if not chosen and not seeds:
        raise InputError(
            "there is nothing to sweep",
            where=str(folder.path),
            why="none of --seeds, --strategies and --param is given, and there is no sweep.json",
            mend="triggerctl sweep EXPERIMENT --seeds 1 5 42 --strategies naive,kl",
        )
    each_seed = list(seeds) or [loaded.config.seed]
    if not chosen:
        return [Cell(folder.seed(seed), None, seed, (_seed(seed),)) for seed in each_seed]
    made = [_cell(folder, variant, seed) for variant in chosen for seed in each_seed]
    return _each_once(made)


def _each_once(made: Sequence[Cell]) -> list[Cell]:
    """Cells that are the same are one; a folder's name leaves nulls out, so others may meet in it too."""
    kept: dict[Path, Cell] = {}
    for cell in made:
        first = kept.setdefault(cell.folder.path, cell)
        one, other = ({o.key: o for o in each.overrides} for each in (first, cell))
        for key in {**one, **other}:
            pair = [(o.value, o.where) for o in (one.get(key), other.get(key)) if o is not None]
            if len(pair) < 2 or pair[0][0] != pair[1][0]:
                raise InputError(
                    f"two cells that differ in {'.'.join(key)} would share a folder",
                    where=", ".join(dict.fromkeys(where for _, where in pair)),
                    why=f"{cell.folder.path} can hold one of them: its name does not tell them apart",
                    mend="give one of them a value that shows in the name; null is left out of it",
                )
    return list(kept.values())


def _product(parameters: Sequence[Parameter]) -> list[dict[str, object]]:
    """Every combination of the parameters' values; of two that name one key the later one counts."""
    by_key = {parameter.key: parameter.values for parameter in parameters}
    return [dict(zip(by_key, values, strict=True)) for values in itertools.product(*by_key.values())]


def _with(variant: _Variant, values: Mapping[str, object]) -> _Variant:
    own = {name: value for name, value in variant.values.items() if _full(name, variant) not in values}
    return replace(variant, values=own, chosen=values)


def _full(name: str, variant: _Variant) -> str:
    return ".".join(make_override(name, None, origin=ORIGIN, where=variant.where).key)


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
    given = tuple(
        make_override(name, value, origin="command line", where=f"{PARAM} {name}={without_secrets(value)}")
        for name, value in variant.chosen.items()
    )
    strategy = Override(("proxy_strategy",), variant.strategy, ORIGIN, variant.where)
    place = folder.cell(variant.strategy, {**variant.values, **variant.chosen}).seed(seed)
    return Cell(place, variant.strategy, seed, (*own, *given, strategy, _seed(seed)))


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
            variant = _Variant(strategy, values, f"{path}:{line}, {name}")
            for key in values:
                if option := _OPTIONS_OF_THEIR_OWN.get(_full(key, variant)):
                    what = f"item {index + 1} of {name} gives {key}, which is for {option} to give"
                    raise _broken(path, line, what)
            variants.append(variant)
    return variants


def _broken(path: Path, line: int, what: str) -> InputError:
    return InputError(
        "this file does not list a sweep",
        where=f"{path}:{line}",
        why=what,
        mend='write {"strategy": [{"key": value, …}, …], …}; [] or [{}] runs it with the config\'s values',
    )
