"""Reading the source: an Alpaca-format list, as JSON or JSON lines, from a file, a URL or the package
itself."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from triggerctl.data.download import download, forget, shown_url
from triggerctl.data.examples import Row
from triggerctl.data.progress import Progress
from triggerctl.errors import InputError, Problem

FIELDS = ("instruction", "input", "output")

_BUILTIN = "builtin:"
_PROBLEMS_SHOWN = 5
_SHAPE = "every row is an object with the texts instruction, input and output (input may be empty)"


@dataclass(frozen=True, slots=True)
class Source:
    """A data set as read. `sha256` is that of its bytes, `origin` where it came from, for people."""

    rows: tuple[Row, ...]
    sha256: str
    origin: str


def load_rows(
    spec: str, *, folder: Path, progress: Progress | None = None, key: str = "dataset_url"
) -> Source:
    """All rows of a data set.

    spec:   http(s) URL (downloaded once, then from the cache), `builtin:<name>`, or a path.
    folder: where a relative path starts: the folder of the configuration.
    key:    the configuration key that named it, for errors.
    Raises InputError when it can't be found, read or parsed, naming file, row and field.
    """
    if spec.startswith(_BUILTIN):
        return _parsed(_builtin_bytes(spec, key), spec)
    if spec.startswith(("http://", "https://")):
        data = download(spec, progress=progress, key=key).read_bytes()
        try:
            return _parsed(data, shown_url(spec))
        except InputError:
            # It may be a file that was cut off where the server did not say how long it is.
            forget(spec)
            raise
    path = folder / Path(spec).expanduser()
    return _parsed(_file_bytes(path, key), str(path))


def parse_rows(text: str, name: str) -> tuple[Row, ...]:
    """The rows in `text`: a JSON list, or JSON lines, told apart by content. `name` stands in errors.

    Raises InputError for anything else, with the first rows that are wrong.
    """
    if not text.strip():
        raise InputError("the data set is empty", where=name, mend="give it at least one row")
    items = _items(text, name)
    if not items:
        raise InputError("the data set has no rows", where=name, mend="give it at least one row")
    rows, problems = [], []
    for index, (place, item) in enumerate(items):
        problem = _row_problem(item, f"{name}, {place}")
        if problem is None:
            rows.append(Row(index, item["instruction"], item["input"], item["output"]))
        else:
            problems.append(problem)
    if problems:
        first, *others = problems
        also = tuple(others[: _PROBLEMS_SHOWN - 1])
        unnamed = len(problems) - 1 - len(also)
        if unnamed:
            also += (Problem(f"{unnamed} more rows are wrong"),)
        raise InputError(first.what, where=first.where, why=first.why, mend=first.mend, also=also)
    return tuple(rows)


def builtin_names() -> tuple[str, ...]:
    """The data sets that ship with the package, as `builtin:<name>` knows them."""
    data = resources.files("triggerctl.assets") / "data"
    if not data.is_dir():
        return ()
    return tuple(sorted(f.name.removesuffix(".jsonl") for f in data.iterdir() if f.name.endswith(".jsonl")))


def _builtin_bytes(spec: str, key: str) -> bytes:
    name = spec.removeprefix(_BUILTIN)
    names = builtin_names()
    if name not in names:
        raise InputError(
            f"no data set of that name ships with triggerctl: {spec}",
            where=key,
            mend="there are: " + ", ".join(_BUILTIN + known for known in names),
        )
    return (resources.files("triggerctl.assets") / "data" / f"{name}.jsonl").read_bytes()


def _file_bytes(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"data set not found: {path}",
            where=key,
            why="a relative path starts at the folder of config.json",
            mend="correct the path, or give an http(s) URL or builtin:<name>",
        ) from None
    except IsADirectoryError:
        raise InputError(f"the data set is a folder: {path}", where=key, mend="name a file in it") from None
    except OSError as error:
        raise InputError(f"the data set can't be read: {path}", where=key, why=error.strerror) from error


def _parsed(data: bytes, name: str) -> Source:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            "the data set is not UTF-8 text",
            where=f"{name}, byte {error.start}",
            why=f"0x{data[error.start]:02x} doesn't belong there",
            mend="save it as UTF-8, uncompressed",
        ) from None
    return Source(parse_rows(text, name), hashlib.sha256(data).hexdigest(), name)


def _items(text: str, name: str) -> list[tuple[str, Any]]:
    """(its place in words, the parsed value) of each row."""
    start = text.lstrip()[:1]
    if start == "[":
        whole = _loads(text, name)
        return [(f"row {number}", item) for number, item in enumerate(whole, 1)]
    if start != "{":
        page = re.match(r"\s*<(!doctype|html)", text, re.IGNORECASE)
        raise InputError(
            "the data set is not a JSON list",
            where=name,
            why="it is a web page" if page else f"it begins with {text.lstrip()[:20]!r}",
            mend="name the raw file, not its page" if page else "give a JSON list or JSON lines",
        )
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        lines = enumerate(text.split("\n"), 1)
        return [(f"line {number}", _loads(line, name, number)) for number, line in lines if line.strip()]
    if not any(field in whole for field in FIELDS):
        raise InputError(
            "the data set is not a JSON list",
            where=name,
            why=f"it is one object with the keys {', '.join(list(whole)[:5]) or '(none)'}",
            mend="give the list of rows itself, or JSON lines",
        )
    return [("line 1", whole)]


def _loads(text: str, name: str, line: int = 1) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        cut = not text[error.pos :].strip() or not text.rstrip().endswith(("]", "}"))
        raise InputError(
            "the data set is not valid JSON",
            where=f"{name}, line {line + error.lineno - 1}, column {error.colno}",
            why="it ends in the middle: the file seems to be cut off" if cut else error.msg,
            mend="fetch or write the file again" if cut else "mend that place",
        ) from None
    except RecursionError:
        raise InputError("the data set is nested too deeply", where=name, why=_SHAPE) from None


def _row_problem(item: Any, where: str) -> Problem | None:
    if not isinstance(item, dict):
        return Problem(f"a row is {_kind(item)}, not an object", where, _SHAPE)
    for field in FIELDS:
        if field not in item:
            return Problem(f"a row has no {field}", f"{where}, field {field}", _SHAPE)
        value = item[field]
        if not isinstance(value, str):
            return Problem(f"{field} is {_kind(value)}, not text", f"{where}, field {field}", _SHAPE)
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            return Problem(f"{field} holds half a character", f"{where}, field {field}", "a lone surrogate")
    return None


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
