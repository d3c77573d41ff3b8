"""From a file and what the command line says to a configuration, with the origin of every value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triggerctl.config import jsonc
from triggerctl.config.jsonc import Key
from triggerctl.config.keys import EXTRA, FINETUNE, dotted, is_legacy
from triggerctl.config.models import ExperimentConfig
from triggerctl.config.overrides import Override, apply_overrides
from triggerctl.config.paths import shown_values
from triggerctl.config.validation import is_given, validate, without
from triggerctl.errors import InputError


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration and how it came about.

    path:     its file, whether or not it is there yet.
    given:    the values that were asked for, overrides included; what is left out has its default.
    origins:  dotted key → "command line", "sweep cell", "config.json:12" or "default", for every key.
    warnings: for the user, a sentence each.
    """

    config: ExperimentConfig
    path: Path
    given: Mapping[str, object]
    origins: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the configuration start from."""
        return self.path.parent


def load_config(path: Path, *, overrides: Sequence[Override] = ()) -> LoadedConfig:
    """Read a configuration file; of two overrides of a key the later one counts.

    Raises InputError that holds every problem found, each with file, line and key.
    """
    document = jsonc.read(path)
    return _load(document.value, _Source(path, overrides, document.line))


def parse_config(values: object, *, path: Path, overrides: Sequence[Override] = ()) -> LoadedConfig:
    """The same for values that are in no file yet; `path` is where they would stand.

    Raises InputError as `load_config`, without lines.
    """
    return _load(values, _Source(path, overrides))


def resolved_document(loaded: LoadedConfig) -> dict[str, Any]:
    """Every key as {"value": …, "from": …}, in the shape of the configuration: for `config.resolved.json`."""

    def told(value: object, key: Key) -> object:
        if dotted(key) in loaded.origins:
            return {"value": value, "from": loaded.origins[dotted(key)]}
        assert isinstance(value, dict)
        return {name: told(inner, (*key, name)) for name, inner in value.items()}

    document = told(shown_values(loaded.config.model_dump(mode="json")), ())
    assert isinstance(document, dict)
    return document


@dataclass(frozen=True, slots=True)
class _Source:
    """Where values were said."""

    path: Path
    overrides: Sequence[Override]
    line: Callable[[Key], int] | None = None

    def where(self, key: Key) -> str:
        """For an error: `exp/config.json:12, finetune_config.epochs`, or the override as it was written."""
        if override := self._override(key):
            return override.where or f"{override.origin}, {dotted(key)}"
        place = f"{self.path}:{self.line(key)}" if self.line else str(self.path)
        return f"{place}, {dotted(key)}" if key else place

    def origin(self, key: Key) -> str:
        """For a value that was given: `config.json:12`, or who overrode it."""
        if override := self._override(key):
            return override.origin
        return f"{self.path.name}:{self.line(key)}" if self.line else self.path.name

    def _override(self, key: Key) -> Override | None:
        last_first = reversed(self.overrides)
        return next((o for o in last_first if key[: len(o.key)] == o.key), None)


def _load(values: object, source: _Source) -> LoadedConfig:
    if not isinstance(values, Mapping):
        raise InputError(
            "a configuration is an object, { … }",
            where=source.where(()),
            mend="triggerctl init my_exp makes one to begin with",
        )
    merged = apply_overrides(values, source.overrides)
    legacy = _legacy_keys(merged)
    given = without(merged, legacy)
    config = validate(_named(given, source.path), source.where)
    warnings = (_legacy_warning(legacy, source),) if legacy else ()
    return LoadedConfig(config, source.path, _without_nulls(given), _origins(config, given, source), warnings)


def _legacy_keys(values: Mapping[str, object]) -> tuple[Key, ...]:
    inner = values.get(FINETUNE)
    keys: list[Key] = [(name,) for name in values]
    keys += [(FINETUNE, name) for name in inner] if isinstance(inner, Mapping) else []
    return tuple(key for key in keys if is_legacy(key))


def _legacy_warning(keys: tuple[Key, ...], source: _Source) -> str:
    return f"{source.path}: keys of the study's scripts that do nothing here: {', '.join(map(dotted, keys))}"


def _without_nulls(values: Mapping[str, object]) -> dict[str, object]:
    return {
        name: _without_nulls(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if value is not None
    }


def _named(values: Mapping[str, object], path: Path) -> dict[str, object]:
    """The values with the folder's name where the experiment has none of its own."""
    if values.get("experiment_name") in (None, ""):
        return {**values, "experiment_name": path.resolve().parent.name}
    return dict(values)


def _origins(config: ExperimentConfig, given: Mapping[str, object], source: _Source) -> dict[str, str]:
    """Who said each value, in the order of the models' fields."""
    keys: list[Key] = []
    for name in type(config).model_fields:
        if name == FINETUNE:
            keys += [(FINETUNE, inner) for inner in type(config.finetune_config).model_fields]
        elif name == EXTRA:
            keys += [
                (EXTRA, own, inner)
                for own, entry in config.extra_evaluation.items()
                for inner in type(entry).model_fields
            ]
        else:
            keys.append((name,))
    return {dotted(key): source.origin(key) if is_given(key, given) else "default" for key in keys}
