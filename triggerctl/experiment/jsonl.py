"""Append-only JSON lines (metrics.jsonl, verdicts.jsonl, examples.jsonl): one object a line, on disk as soon
as it is written. A torn last line, left by a kill or a power cut, is ignored by readers and cut off by the
next writer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from triggerctl import disk
from triggerctl.errors import InputError, RunError
from triggerctl.experiment.atomic import disk_errors, finite


class JsonLinesWriter:
    """Appends objects to one file. There is one writer at a time: whoever holds the run's claim."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(path):
            _cut_torn_line(path)
            self._file = disk.open_to_append(path)

    def append(self, record: Mapping[str, object]) -> None:
        """Write one line in one call, so that a reader sees it whole. NaN and infinities become null. Where
        the disk takes no more than a part of it, nothing of it stays: more lines may follow."""
        line = json.dumps(finite(record), ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
        with disk_errors(self.path):
            disk.append(self._file, self.path, line.encode())

    def sync(self) -> int:
        """Make all lines so far outlast a power cut; return the file's size in bytes, for `truncate_to`."""
        with disk_errors(self.path):
            disk.sync_open(self._file, self.path)
            return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> JsonLinesWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of the file, in order and one in memory at a time; a file that is not there has none.

    A last line without its line end, or one that is not JSON, is torn and ignored. Raises InputError for a
    bad line anywhere else, once it is come to.
    """
    bad: InputError | None = None
    for number, line in enumerate(whole_lines(path), start=1):
        if bad is not None:
            raise bad
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("not a JSON object")
        except ValueError as error:
            bad = InputError(
                f"{path.name} is damaged",
                where=f"{path}:{number}",
                why=str(error),
                mend="run the experiment again with --fresh, or remove the damaged line",
            )
            bad.__cause__ = error
        else:
            yield record


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines as bytes, without a last one that lacks its line end. Raises as `disk_errors`."""
    if not path.exists():
        return
    with disk_errors(path, "read"), disk.open_to_read(path) as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def truncate_to(path: Path, size: int) -> None:
    """Cut the file back to `size` bytes, what it held when a checkpoint was written, so that a resumed run
    writes the lines after it anew. Size 0 also serves a file that is not there. Raises RunError if the file
    is shorter."""
    actual = path.stat().st_size if path.exists() else 0
    if actual < size:
        raise RunError(
            f"{path.name} is shorter than the checkpoint says",
            where=str(path),
            why=f"{actual} bytes, {size} expected: the file was changed or lost its end",
            mend="start the run anew with --fresh",
        )
    if actual > size:
        with disk_errors(path):
            disk.cut(path, size)


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    content = disk.read_bytes(path)
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        disk.cut(path, whole)
