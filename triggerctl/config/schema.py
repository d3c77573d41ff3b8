"""What each key takes, as JSON Schema for editors and in words for people. Both come from the models."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from triggerctl.config.jsonc import Key
from triggerctl.config.models import LEGACY_EXPERIMENT_KEYS, LEGACY_FINETUNE_KEYS, ExperimentConfig

Fragment = dict[str, Any]


def json_schema() -> Fragment:
    """The JSON Schema (draft 2020-12) of `config.json`, with every key's description and default.

    null is allowed wherever a default exists; legacy keys are there, marked as deprecated. What no schema can
    say (shares that sum to 1, quantised weights that cannot be trained) is left to `load_config`.
    """
    schema = ExperimentConfig.model_json_schema()
    for fragment in (schema, *schema["$defs"].values()):
        for name, taken in fragment["properties"].items():
            taken.pop("hashed", None)
            if "patternProperties" in taken:  # a name that fits no pattern is refused, not passed over
                taken["additionalProperties"] = False
            if name not in fragment.get("required", ()):
                fragment["properties"][name] = _nullable(taken)
    del schema["properties"]["experiment_name"]["default"]  # the folder's name, which no schema knows
    schema["properties"].update(_legacy(LEGACY_EXPERIMENT_KEYS))
    schema["$defs"]["FinetuneConfig"]["properties"].update(_legacy(LEGACY_FINETUNE_KEYS))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "triggerctl experiment",
        "allowTrailingCommas": True,  # read by editors; no part of the standard
    }


def _nullable(taken: Fragment) -> Fragment:
    told: Fragment = {word: taken[word] for word in ("title", "description", "default") if word in taken}
    rest = {word: value for word, value in taken.items() if word not in told}
    choices = rest.pop("anyOf", None) or [rest]
    return {**told, "anyOf": [*(c for c in choices if c != {"type": "null"}), {"type": "null"}]}


def _legacy(names: frozenset[str]) -> Fragment:
    return {
        name: {"description": "Legacy: accepted, does nothing.", "deprecated": True} for name in sorted(names)
    }


@cache
def _raw_schema() -> Fragment:
    return ExperimentConfig.model_json_schema()


def expected(key: Key) -> str:
    """What a known key takes, in words: "a whole number, at least 0"."""
    fragment = _resolved(_raw_schema())
    for name in key:
        if isinstance(name, int):
            return _in_words(_items(fragment))
        inner = fragment.get("properties", {}).get(name) or _any_member(fragment)
        fragment = _resolved(inner)
    return _in_words(fragment)


def choices(key: Key) -> tuple[str, ...]:
    """The strings that a known key takes where they can be counted, else none."""
    fragment = _resolved(_raw_schema())
    for name in key:
        fragment = _resolved(fragment.get("properties", {}).get(name) or {})
    fragments = fragment.get("anyOf", [fragment])
    return tuple(c for f in fragments for c in (*f.get("enum", ()), *([f["const"]] if "const" in f else ())))


def _resolved(fragment: Fragment) -> Fragment:
    if "$ref" not in fragment:
        return fragment
    found: Fragment = _raw_schema()["$defs"][fragment["$ref"].rpartition("/")[2]]
    return found


def _items(fragment: Fragment) -> Fragment:
    """What each item of a list is."""
    items: Fragment = next(f["items"] for f in fragment.get("anyOf", [fragment]) if "items" in f)
    return items


def _any_member(fragment: Fragment) -> Fragment:
    """What a mapping with free names holds under each of them."""
    members: Fragment = next(iter(fragment["patternProperties"].values()))
    return members


def _in_words(fragment: Fragment) -> str:
    if "anyOf" in fragment:
        taken = [_in_words(choice) for choice in fragment["anyOf"]]
        return ("; or " if any("," in words for words in taken) else " or ").join(taken)
    if "enum" in fragment:
        return "one of " + ", ".join(json.dumps(choice) for choice in fragment["enum"])
    if "const" in fragment:
        return json.dumps(fragment["const"])
    match fragment.get("type"):
        case "array":
            some = " with at least one item" if fragment.get("minItems") else ""
            return f"a list{some}, each item {_in_words(fragment['items'])}"
        case "string":
            return "a string that is not empty" if fragment.get("minLength") else "a string"
        case "integer":
            return "a whole number" + _limits(fragment)
        case "number":
            return "a number" + _limits(fragment)
        case "boolean":
            return "true or false"
        case "null":
            return "null"
    return "an object, { … }"


def _limits(fragment: Fragment) -> str:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "greater than",
        "maximum": "at most",
        "exclusiveMaximum": "less than",
    }
    stated = [f"{words[word]} {_number(fragment[word])}" for word in words if word in fragment]
    return ", " + " and ".join(stated) if stated else ""


def _number(limit: float) -> str:
    return f"{limit:g}" if isinstance(limit, float) else str(limit)
