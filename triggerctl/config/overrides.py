"""Values that come from elsewhere than `config.json`: `--set key=value` and the cells of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from triggerctl.config import jsonc
from triggerctl.config.keys import find_key
from triggerctl.config.models import ExperimentConfig
from triggerctl.config.paths import without_secrets
from triggerctl.errors import InputError


@dataclass(frozen=True, slots=True)
class Override:
    """One value that replaces the file's; None means the default.

    origin: who says so: "command line", "sweep cell".
    where:  how errors point at it, such as `--set epochs=3`; left out: by origin and key.
    """

    key: tuple[str, ...]
    value: object
    origin: str
    where: str = ""


def parse_override(text: str, *, origin: str = "command line", option: str = "--set") -> Override:
    """Read `key=value`: a dotted key, or a bare one that stands at one level only.

    The key decides what the value is: JSON if the key takes what it says, else the text itself if the key
    takes that. `experiment_name=5` is a string, `epochs=5` a number, `epochs=null` the default. A value that
    suits neither way is left for `load_config` to refuse.

    Raises InputError for a text without = and for an unknown key, naming the option.
    """
    name, equals, raw = text.partition("=")
    where = f"{option} {without_secrets(text)}"
    if not equals:
        raise InputError(f"{option} takes key=value", where=where, mend=f"such as {option} epochs=3")
    key = find_key(name.strip(), where)
    return Override(key, _typed(key, raw.strip()), origin, where)


def make_override(name: str, value: object, *, origin: str, where: str) -> Override:
    """An override whose value is known already, as in a cell of `sweep.json`; key as in `parse_override`."""
    return Override(find_key(name, where), value, origin, where)


def apply_overrides(values: Mapping[str, object], overrides: Sequence[Override]) -> dict[str, object]:
    """The values with the overrides put in, a later one before an earlier one; nothing given is changed."""
    result = dict(values)
    for override in overrides:
        _put(result, override.key, override.value)
    return result


def _put(values: dict[str, object], key: tuple[str, ...], value: object) -> None:
    name, *inner = key
    if not inner:
        values[name] = value
        return
    held = values.get(name)
    if held is not None and not isinstance(held, Mapping):
        return  # what stands there is wrong in itself, and is complained of when it is read
    values[name] = dict(held or {})
    nested = values[name]
    assert isinstance(nested, dict)
    _put(nested, tuple(inner), value)


def _typed(key: tuple[str, ...], raw: str) -> object:
    try:
        value = jsonc.parse(raw, "value").value
    except InputError:
        return raw
    if value is None or _takes(key, value) or not _takes(key, raw):
        return value
    return raw


def _takes(key: tuple[str, ...], value: object) -> bool:
    """Whether a value alone, with everything else at its default, is right for a key."""
    nested = value
    for name in reversed(key):
        nested = {name: nested}
    try:
        ExperimentConfig.model_validate(nested)
    except ValidationError as error:
        return all(fault["loc"][: len(key)] != key for fault in error.errors())
    return True
