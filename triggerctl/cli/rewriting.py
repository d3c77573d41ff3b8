"""Changing values in a config's text where they stand, so that its comments and layout stay."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r'(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<string>"(?:\\.|[^"\\])*")|(?P<mark>[{}\[\]:,])|(?P<word>[^\s{}\[\]:,"/]+)',
    re.DOTALL,
)

INDENT = 2


@dataclass(slots=True)
class _Value:
    """A value's place in the text: `start` and `end`, and its members where it is an object."""

    start: int
    end: int = 0
    members: dict[str, _Value] = field(default_factory=dict)
    is_object: bool = False


def with_values(text: str, values: Mapping[tuple[str, ...], object]) -> str:
    """The text with each value at its key: replaced where the key stands, else added at the end of its
    object.

    text: valid JSON, comments and trailing commas allowed, an object at its top. Raises ValueError if it is
    not one.
    """
    for key, value in values.items():
        text = _with_value(text, key, value)
    return text


def _with_value(text: str, key: tuple[str, ...], value: object) -> str:
    tokens = [m for m in _TOKEN.finditer(text) if m.lastgroup != "comment"]
    holder, position = _read(tokens, 0)
    if not holder.is_object or position != len(tokens):
        raise ValueError("the text does not hold one object")
    for depth, name in enumerate(key):
        if name not in holder.members:
            rest: object = value
            for inner in reversed(key[depth + 1 :]):
                rest = {inner: rest}
            return _appended(text, holder, name, rest, depth + 1)
        holder = holder.members[name]
        if not holder.is_object and depth < len(key) - 1:
            raise ValueError(f"{name} does not hold an object")
    return text[: holder.start] + _written(value, len(key)) + text[holder.end :]


def _read(tokens: list[re.Match[str]], position: int) -> tuple[_Value, int]:
    """The value that starts at a token, and the token after it."""
    opening = tokens[position]
    value = _Value(opening.start(), opening.end(), is_object=opening[0] == "{")
    position += 1
    if opening[0] not in ("{", "["):
        return value, position
    while tokens[position][0] not in ("}", "]"):
        if tokens[position][0] == ",":
            position += 1
        elif value.is_object:
            name = json.loads(tokens[position][0])
            value.members[name], position = _read(tokens, position + 2)
        else:
            _, position = _read(tokens, position)
    value.end = tokens[position].end()
    return value, position + 1


def _appended(text: str, holder: _Value, name: str, value: object, depth: int) -> str:
    """The text with a member more at the end of an object."""
    closing = holder.end - 1
    before = text[:closing].rstrip()
    if holder.members:
        last = max(member.end for member in holder.members.values())
        between = _TOKEN.finditer(text, last, closing)
        if not any(match.lastgroup == "mark" for match in between):
            before = before[:last] + "," + before[last:]
    line = f"\n{' ' * INDENT * depth}{json.dumps(name)}: {_written(value, depth)}"
    return f"{before}{line}\n{' ' * INDENT * (depth - 1)}{text[closing:]}"


def _written(value: object, depth: int) -> str:
    """A value as JSON: lists on one line, objects with a line for each member, `depth` levels in."""
    if isinstance(value, dict) and value:
        pad = " " * INDENT
        lines = [f"{pad * (depth + 1)}{json.dumps(k)}: {_written(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(lines) + "\n" + pad * depth + "}"
    return json.dumps(value, ensure_ascii=False)
