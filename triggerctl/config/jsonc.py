"""JSON as people write it: `//` and `/* */` comments and trailing commas are allowed, and the line of every
key is kept, so that a later complaint can point at it. Everything else is as strict as JSON; a key given
twice is an error. This file knows nothing of what the keys mean."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from triggerctl import disk
from triggerctl.errors import InputError

Key = tuple[str | int, ...]
"""Where a value stands in a document: names of members and indices of arrays, from the outside in."""

MAX_DEPTH = 100

_BLANK = re.compile(r"[ \t\r\n]+")
_STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"')
_WORD = re.compile(r'[^ \t\r\n,:\[\]{}"/]+')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LITERALS: Mapping[str, object] = {"true": True, "false": False, "null": None}
_MENDS = {
    "True": "write true",
    "False": "write false",
    "None": "write null",
    "NaN": "JSON has no NaN; write a number or null",
    "Infinity": "JSON has no Infinity; write a number or null",
    "-Infinity": "JSON has no Infinity; write a number or null",
}


@dataclass(frozen=True, slots=True)
class Document:
    """What a text says (`value`: dict, list, str, int, float, bool or None) and where it says it."""

    value: object
    lines: Mapping[Key, int]

    def line(self, key: Key) -> int:
        """The line, from 1, of a member's name or an array's item; of what holds it where it is not there."""
        while key not in self.lines:
            key = key[:-1]
        return self.lines[key]


def read(path: Path) -> Document:
    """Read and parse a file; a byte order mark is skipped.

    Raises InputError for a file that cannot be read, is not UTF-8, or is not JSON.
    """
    try:
        raw = disk.read_bytes(path)
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path), mend="correct the path") from error
    except IsADirectoryError as error:
        raise InputError("this is a folder, not a file", where=str(path), mend="name a file in it") from error
    except OSError as error:
        mend = (
            "give yourself the right to read it" if isinstance(error, PermissionError) else "correct the path"
        )
        raise InputError("the file cannot be read", where=str(path), why=error.strerror, mend=mend) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            "the file is not UTF-8",
            where=f"{path}:{line}",
            why=f"byte 0x{raw[error.start]:02x} on that line belongs to another encoding",
            mend="save it as UTF-8",
        ) from error
    return parse(text, str(path))


def parse(text: str, name: str) -> Document:
    """Parse a text; `name` is what errors call it.

    Raises InputError with line and column (both from 1, in characters), what was met and what to do.
    """
    scanner = _Scanner(text.removeprefix("\ufeff"), name)
    value = scanner.document()
    return Document(value, scanner.lines)


class _Scanner:
    """One pass over a text from its start to its end; `at` is the next character's place."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.at = 0
        self.lines: dict[Key, int] = {}
        self._counted = (0, 1)

    def document(self) -> object:
        self._skip()
        if self.at == len(self.text):
            self._fail("there is nothing in it", mend="write a JSON object, { … }")
        self.lines[()] = self._line(self.at)
        value = self._value(())
        self._skip()
        if self.at < len(self.text):
            self._fail(
                f"there is more after the end: {self._met()}",
                why="a document holds one value",
                mend="look for a bracket closed too early",
            )
        return value

    def _value(self, key: Key) -> object:
        if len(key) > MAX_DEPTH:
            self._fail(f"values stand within each other more than {MAX_DEPTH} deep")
        match self.text[self.at]:
            case "{":
                return self._object(key)
            case "[":
                return self._array(key)
            case '"':
                return self._string()
        return self._word()

    def _object(self, key: Key) -> dict[str, object]:
        members: dict[str, object] = {}
        opened = self._open()
        while self._next("}", opened, "object"):
            start = self.at
            if self.text[start] != '"':
                self._fail(
                    f"expected a key in double quotes or }}, met {self._met()}", mend='write "key": value'
                )
            name = self._string()
            member = (*key, name)
            if name in members:
                self._fail(
                    f'the key "{name}" is given twice',
                    why=f"it stands on line {self.lines[member]} already",
                    mend="keep one of them",
                    at=start,
                )
            self.lines[member] = self._line(start)
            self._skip(opened, "object")
            if self.text[self.at] != ":":
                self._fail(f'expected : after the key "{name}", met {self._met()}')
            self.at += 1
            self._skip(opened, "object")
            members[name] = self._value(member)
            self._comma("}", opened, "object")
        return members

    def _array(self, key: Key) -> list[object]:
        items: list[object] = []
        opened = self._open()
        while self._next("]", opened, "list"):
            item = (*key, len(items))
            self.lines[item] = self._line(self.at)
            items.append(self._value(item))
            self._comma("]", opened, "list")
        return items

    def _open(self) -> int:
        self.at += 1
        return self.at - 1

    def _next(self, close: str, opened: int, what: str) -> bool:
        """Go to the next member or item; at the closing bracket step over it and say no."""
        self._skip(opened, what)
        if self.text[self.at] != close:
            return True
        self.at += 1
        return False

    def _comma(self, close: str, opened: int, what: str) -> None:
        """Step over the comma after a member or item; the last one needs none."""
        self._skip(opened, what)
        if self.text[self.at] == ",":
            self.at += 1
        elif self.text[self.at] != close:
            self._fail(f"expected , or {close}, met {self._met()}", mend="is a comma missing before it?")

    def _string(self) -> str:
        found = _STRING.match(self.text, self.at)
        if found is None:
            return self._unclosed_string()
        try:
            value = json.loads(found[0])
        except json.JSONDecodeError as error:
            self._fail(
                "a backslash in this string starts nothing that JSON knows",
                mend=r"write \\ for a backslash itself",
                at=self.at + error.pos,
            )
        assert isinstance(value, str)
        if any("\ud800" <= character <= "\udfff" for character in value):
            self._fail(r"half of a surrogate pair (\ud800 to \udfff) is no character")
        self.at = found.end()
        return value

    def _unclosed_string(self) -> NoReturn:
        end = self.at + 1
        while end < len(self.text) and self.text[end] >= " ":
            end += 1
        if end == len(self.text):
            self._fail("the text ends within a string", mend='close it with "; was the file cut off?')
        if self.text[end] in "\r\n":
            self._fail(
                "a string is not closed on its line", mend=r'close it with "; a line break within it is \n'
            )
        self._fail(
            "a control character stands in a string",
            mend=f"write {json.dumps(self.text[end])[1:-1]} instead",
            at=end,
        )

    def _word(self) -> object:
        found = _WORD.match(self.text, self.at)
        word = found[0] if found else ""
        if word in _LITERALS:
            self.at += len(word)
            return _LITERALS[word]
        number = _NUMBER.fullmatch(word)
        if number is None:
            mend = _MENDS.get(word, 'text stands in double quotes: "…"' if word else None)
            self._fail(f"expected a value, met {self._met()}", mend=mend)
        value = float(word) if number[1] or number[2] else self._integer(word)
        if isinstance(value, float) and math.isinf(value):
            self._fail(f"the number {word} is too large")
        self.at += len(word)
        return value

    def _integer(self, word: str) -> int:
        try:
            return int(word)
        except ValueError:  # Python's limit of digits
            self._fail(f"a number of {len(word)} digits is too long")

    def _skip(self, opened: int | None = None, what: str = "") -> None:
        """Step over blanks and comments. Within a bracket (opened at `opened`) the text must go on."""
        while self.at < len(self.text):
            if blank := _BLANK.match(self.text, self.at):
                self.at = blank.end()
            elif self.text.startswith("//", self.at):
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self.text.startswith("/*", self.at):
                end = self.text.find("*/", self.at + 2)
                if end < 0:
                    self._fail("a comment opened with /* is never closed", mend="close it with */")
                self.at = end + 2
            else:
                return
        if opened is not None:
            self._fail(
                f"the text ends in the middle of {'an' if what == 'object' else 'a'} {what}",
                why=f"the {self.text[opened]} on line {self._line(opened)} is never closed",
                mend="close it, or restore the file if it was cut off",
            )

    def _met(self) -> str:
        """The piece of text that stands here, short, for a message."""
        rest = self.text[self.at :]
        word = _WORD.match(rest)
        piece = word[0] if word else rest[:1]
        if not piece.isprintable():
            return f"the character U+{ord(piece[0]):04X}"
        return piece if len(piece) <= 30 else piece[:30] + "…"

    def _line(self, at: int) -> int:
        """The line of a place, counted on from the last one asked for."""
        seen, line = self._counted
        line += self.text.count("\n", seen, at) if at >= seen else -self.text.count("\n", at, seen)
        self._counted = (at, line)
        return line

    def _fail(
        self, what: str, *, why: str | None = None, mend: str | None = None, at: int | None = None
    ) -> NoReturn:
        at = self.at if at is None else at
        column = at - (self.text.rfind("\n", 0, at) + 1) + 1
        raise InputError(what, where=f"{self.name}:{self._line(at)}:{column}", why=why, mend=mend)
