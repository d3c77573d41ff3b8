"""From values to a configuration, or to everything that is wrong with them, in words."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from triggerctl.config.jsonc import Key
from triggerctl.config.keys import EXTRA, FINETUNE, dotted, nearest, unknown_key
from triggerctl.config.models import ExperimentConfig
from triggerctl.config.schema import choices, expected
from triggerctl.errors import InputError, Problem

_OWN_WORDS = ("prompt_template", "reserved_name")
"""Types of faults whose message is written in the models."""


def validate(values: Mapping[str, object], where: Callable[[Key], str]) -> ExperimentConfig:
    """The configuration that the values make; `where` tells the place of a key for an error.

    Raises InputError that holds every problem. Contradictions show only once every value is right by itself,
    so the wrong ones are set aside and the rest is looked at again.
    """
    try:
        return ExperimentConfig.model_validate(dict(values))
    except ValidationError as error:
        faults = _faults_by_key(error)
        contradictions = _contradictions(error)
    if faults:
        try:
            ExperimentConfig.model_validate(without(values, [_field(key) for key in faults]))
        except ValidationError as error:
            contradictions = _contradictions(error)
    problems = [_problem(key, fault, values, where(key)) for key, fault in faults.items()]
    aside = {dotted(_field(key)) for key in faults}
    for found in contradictions:
        if aside.isdisjoint(found.keys):
            keys = [tuple(key.split(".")) for key in found.keys]
            stated = next((key for key in keys if is_given(key, values)), keys[0])
            problems.append(Problem(found.what, where(stated), None, found.mend))
    first, *others = problems
    raise InputError(first.what, where=first.where, why=first.why, mend=first.mend, also=tuple(others))


def without(values: Mapping[str, object], keys: Sequence[Key]) -> dict[str, object]:
    """The values less some keys, each at its depth."""
    result: dict[str, object] = {}
    for name, value in values.items():
        inner = [key[1:] for key in keys if key[0] == name]
        if () not in inner:
            result[name] = without(value, inner) if inner and isinstance(value, Mapping) else value
    return result


def is_given(key: Key, values: Mapping[str, object]) -> bool:
    """Whether the values say something of a key, be it null."""
    held: object = values
    for name in key:
        if not isinstance(held, Mapping) or name not in held:
            return False
        held = held[name]
    return True


def _faults_by_key(error: ValidationError) -> dict[Key, ErrorDetails]:
    """One fault for each key, the first; where an item of a list is wrong, the item rather than the list."""
    faults: dict[Key, ErrorDetails] = {}
    for fault in error.errors():
        if fault["type"] != "contradiction":
            faults.setdefault(_key(fault["loc"]), fault)
    return {
        key: fault
        for key, fault in faults.items()
        if not any(other != key and other[: len(key)] == key for other in faults)
    }


def _contradictions(error: ValidationError) -> list[Any]:
    return [c for fault in error.errors() if fault["type"] == "contradiction" for c in fault["ctx"]["found"]]


def _key(place: Key) -> Key:
    """The key of a fault: pydantic's place less the names of a union's branches."""
    depth = {FINETUNE: 2, EXTRA: 3}.get(str(place[0]), 1)
    named = tuple(name for name in place[:depth] if name != "[key]")
    return (*named, *(index for index in place[depth:] if isinstance(index, int)))


def _field(key: Key) -> Key:
    """What to set aside when a key is wrong: the field, or the whole entry of extra_evaluation."""
    return key[:2] if key[0] in (FINETUNE, EXTRA) else key[:1]


def _problem(key: Key, fault: ErrorDetails, values: Mapping[str, object], where: str) -> Problem:
    match fault["type"]:
        case "extra_forbidden":
            return unknown_key(key, where)
        case "missing":
            return Problem(f"{dotted(key)} is missing", where, f"expected {expected(key)}")
        case "string_pattern_mismatch":
            return Problem(
                f'"{key[-1]}" cannot name a set',
                where,
                "files are named after it",
                "use letters, digits, _ and -",
            )
        case kind if kind in _OWN_WORDS:
            return Problem(f"{dotted(key)} cannot be used", where, fault["msg"])
    value = _value(key, values)
    return Problem(
        f"{dotted(key)} cannot be {_shown(value)}", where, f"expected {expected(key)}", _mend(key, value)
    )


def _value(key: Key, values: Mapping[str, object]) -> object:
    held: Any = values
    for name in key:
        held = held[name]
    return held


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else text[:60] + "…"


def _mend(key: Key, value: object) -> str | None:
    """What the value should have been, where that can be guessed: the nearest word, or it without quotes."""
    if not isinstance(value, str):
        return None
    if near := nearest(value, choices(key)):
        return f'did you mean "{near}"?'
    takes = expected(key)
    if value.lower() in ("true", "false") and "true or false" in takes:
        return f"write {value.lower()}, without quotes"
    if _is_number(value) and "number" in takes:
        return f"write {value}, without quotes"
    return None


def _is_number(text: str) -> bool:
    try:
        number = json.loads(text)
        return isinstance(number, int | float) and math.isfinite(number)
    except (ValueError, RecursionError):
        return False
