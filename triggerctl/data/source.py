"""Reading the source: an Alpaca-format list, as JSON or JSON lines, from a file, a URL or the package
itself."""

from __future__ import annotations

import codecs
import hashlib
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

from triggerctl import disk
from triggerctl.config.paths import shown_url
from triggerctl.data.compact_rows import CompactRows
from triggerctl.data.download import download, forget
from triggerctl.data.examples import Row
from triggerctl.data.progress import Progress
from triggerctl.errors import InputError, Problem

FIELDS = ("instruction", "input", "output")

_BUILTIN = "builtin:"
_PROBLEMS_SHOWN = 5
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_SHAPE = "every row is an object with the texts instruction, input and output (input may be empty)"
_MEND = "mend the row, or leave it out"


@dataclass(frozen=True, slots=True)
class Source:
    """A data set as read. `sha256` is that of its bytes, `origin` where it came from, for people, to whom
    `notes` are told."""

    rows: Sequence[Row]
    sha256: str
    origin: str
    notes: tuple[str, ...] = ()


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
        return _parsed(io.BytesIO(_builtin_bytes(spec, key)), spec)
    if spec.startswith(("http://", "https://")):
        notes: list[str] = []
        path = download(spec, progress=progress, key=key, note=notes.append)
        try:
            with disk.open_to_read(path) as file:
                return replace(_parsed(file, shown_url(spec)), notes=tuple(notes))
        except InputError:
            # It may be a file that was cut off where the server did not say how long it is.
            forget(spec)
            raise
    path = folder / Path(spec).expanduser()
    with _opened(path, key) as file:
        return _parsed(file, str(path))


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


def _opened(path: Path, key: str) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise InputError(
            f"data set not found: {path}",
            where=key,
            why="a relative path starts at the folder of config.json",
            mend="correct the path, or give an http(s) URL or builtin:<name>",
        ) from None
    except IsADirectoryError:
        raise InputError(f"the data set is a folder: {path}", where=key, mend="name a file in it") from None
    except (OSError, ValueError) as error:  # a ValueError: the path holds a null byte
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"the data set can't be read: {path}", where=key, why=why) from error


def _parsed(file: BinaryIO, name: str) -> Source:
    """Reads JSON lines one at a time: of a large file no more is in memory than its rows' texts, as bytes,
    and the line at hand."""
    digest = hashlib.sha256()
    try:
        rows = CompactRows(_texts(_items(_lines(file, name, digest.update), name), name))
    except OSError as error:
        raise InputError(f"the data set can't be read: {name}", why=error.strerror) from error
    if not rows:
        raise InputError("the data set has no rows", where=name, mend="give it at least one row")
    return Source(rows, digest.hexdigest(), name)


def _lines(file: BinaryIO, name: str, seen: Callable[[bytes], object]) -> Iterator[str]:
    """The lines with their ends, a byte order mark left out; `seen` is given the bytes as they are read."""
    offset = 0
    for raw in file:
        seen(raw)
        marked = offset == 0 and raw.startswith(codecs.BOM_UTF8)
        try:
            yield raw.decode("utf-8-sig" if marked else "utf-8")
        except UnicodeDecodeError as error:
            # Without a mark, since of one with it the place would be counted from behind it.
            start = error.start + (len(codecs.BOM_UTF8) if marked else 0)
            raise InputError(
                "the data set is not UTF-8 text",
                where=f"{name}, byte {offset + start}",
                why=f"0x{raw[start]:02x} doesn't belong there",
                mend="save it as UTF-8, uncompressed",
            ) from None
        offset += len(raw)


def _texts(items: Iterable[tuple[str, Any]], name: str) -> Iterator[tuple[str, str, str]]:
    """Instruction, input and output of items, each given with its place in words. Raises InputError behind
    the last item with the first that are wrong, and how many more are."""
    problems: list[Problem] = []
    wrong = 0
    for place, item in items:
        problem = _row_problem(item, f"{name}, {place}")
        if problem is None and not wrong:
            yield item["instruction"], item["input"], item["output"]
        elif problem is not None:
            wrong += 1
            if wrong <= _PROBLEMS_SHOWN:
                problems.append(problem)
    if problems:
        first, *also = problems
        if wrong > _PROBLEMS_SHOWN:
            also.append(Problem(f"{wrong - _PROBLEMS_SHOWN} more rows are wrong"))
        raise InputError(first.what, where=first.where, why=first.why, mend=first.mend, also=tuple(also))


def _items(lines: Iterator[str], name: str) -> Iterator[tuple[str, Any]]:
    """(its place in words, the parsed value) of each row. JSON lines are told by their first line: it is an
    object, and not the last line."""
    begun: list[str] = []
    filled: list[int] = []
    for line in lines:
        begun.append(line)
        if line.strip():
            filled.append(len(begun))
        if len(filled) == 2:
            break
    if not filled:
        raise InputError("the data set is empty", where=name, mend="give it at least one row")
    if len(filled) == 2 and _is_object(begun[filled[0] - 1]):
        numbered = enumerate(itertools.chain(begun, lines), 1)
        return ((f"line {number}", _loads(line, name, number)) for number, line in numbered if line.strip())
    return iter(_items_of_text("".join(itertools.chain(begun, lines)), name))


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _items_of_text(text: str, name: str) -> list[tuple[str, Any]]:
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
    if not _is_object(text):
        numbered = enumerate(text.split("\n"), 1)
        return [(f"line {number}", _loads(line, name, number)) for number, line in numbered if line.strip()]
    whole = _loads(text, name)
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
        raise InputError("the data set is nested too deeply", where=name, why=_SHAPE, mend=_MEND) from None
    except ValueError:  # Python's limit of digits
        raise InputError("a number in the data set is too long", where=name, why=_SHAPE, mend=_MEND) from None


def _row_problem(item: Any, where: str) -> Problem | None:
    if not isinstance(item, dict):
        return Problem(f"a row is {_kind(item)}, not an object", where, _SHAPE, _MEND)
    for field in FIELDS:
        if field not in item:
            return Problem(f"a row has no {field}", f"{where}, field {field}", _SHAPE, _MEND)
        value = item[field]
        if not isinstance(value, str):
            return Problem(f"{field} is {_kind(value)}, not text", f"{where}, field {field}", _SHAPE, _MEND)
        if not value.isascii() and _HALF_CHARACTER.search(value):
            return Problem(
                f"{field} holds half a character", f"{where}, field {field}", "a lone surrogate", _MEND
            )
    return None


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
