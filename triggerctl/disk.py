"""Every file operation on experiments and on the cache, one function each: the one place where a disk can
fail a run. What it means that one fails is for the callers to say.

Each operation is told to `observer` just before it happens. In the package that does nothing; the tests put
there what makes the n-th operation fail, or the process end there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from io import BufferedReader, BufferedWriter, FileIO
from pathlib import Path
from typing import Literal, Protocol, TypeVar

Kind = Literal["read", "write", "sync", "rename", "lock", "folder", "remove"]
"""`lock`: what only one of many that ask at once gets, and signs of life. `remove` ends files and folders."""

FilePath = Path | str
Observer = Callable[[Kind, FilePath, bytes], None]
"""Is given the kind, the path and, where a file is written here, the bytes: of a write that fails half-way a
part may reach the disk."""


class Writable(Protocol):
    """An open file that is not buffered."""

    def write(self, content: bytes | memoryview, /) -> int: ...
    def truncate(self, size: int, /) -> int: ...
    def fileno(self) -> int: ...


def _unobserved(kind: Kind, path: FilePath, content: bytes) -> None:
    return None


observer: Observer = _unobserved


def read_bytes(path: FilePath) -> bytes:
    observer("read", path, b"")
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - quicker by half than through a Path
        return file.readall()


def read_text(path: FilePath) -> str:
    """UTF-8, whatever the lines end in."""
    return read_bytes(path).decode("utf-8")


def open_to_read(path: Path) -> BufferedReader:
    observer("read", path, b"")
    return path.open("rb")


def open_to_write(path: Path) -> BufferedWriter:
    """The file from its beginning, made where it is not there. For what writes into an open file itself."""
    observer("write", path, b"")
    return path.open("wb")


def open_to_append(path: Path) -> FileIO:
    """Not buffered: what is written to it is on its way to the disk."""
    observer("write", path, b"")
    return path.open("ab", buffering=0)


P = TypeVar("P", Path, str)


def before_opening(kind: Literal["read", "write"], path: P) -> P:
    """The path, for what opens it itself: a library, or who reads no more than a part."""
    observer(kind, path, b"")
    return path


def write_bytes(path: Path, content: bytes) -> None:
    observer("write", path, content)
    path.write_bytes(content)


def append(file: Writable, path: Path, content: bytes) -> None:
    """Add to the open file in one call, so that a reader sees it whole; where the disk takes no more than a
    part, nothing of it stays."""
    before = os.fstat(file.fileno()).st_size
    rest = memoryview(content)
    try:
        observer("write", path, content)
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(before)
        raise


def cut(path: Path, size: int) -> None:
    """Cut a file back to its first `size` bytes."""
    observer("write", path, b"")
    os.truncate(path, size)


def copy(source: Path, path: Path) -> None:
    observer("write", path, b"")
    shutil.copyfile(source, path)


def sync_open(file: Writable, path: Path) -> None:
    observer("sync", path, b"")
    os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Make a file, or a folder's names, last through a power cut."""
    observer("sync", path, b"")
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def rename(path: Path, to: Path) -> None:
    """A file takes the place of one that has that name."""
    observer("rename", to, b"")
    path.replace(to)


def make_folder(path: Path) -> None:
    """With its parents; one that is there is no error."""
    observer("folder", path, b"")
    path.mkdir(parents=True, exist_ok=True)


def take_folder(path: Path) -> None:
    """Raises FileExistsError where it is there."""
    observer("lock", path, b"")
    path.mkdir()


def take_name(path: Path, name: Path) -> None:
    """Give a file a second name. Raises FileExistsError where that is taken."""
    observer("lock", name, b"")
    os.link(path, name)


def create(path: Path, content: bytes) -> None:
    """Write and sync a file that is not there yet; where the disk takes no more than a part, nothing of it is
    left. Raises FileExistsError where it is there."""
    observer("lock", path, content)
    opened = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        rest = content
        while rest:
            rest = rest[os.write(opened, rest) :]
        observer("sync", path, b"")
        os.fsync(opened)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(opened)


def mark(path: Path, times: tuple[float, float] | None = None, *, opened: int | None = None) -> None:
    """Set when a file was last used and changed, by default now. `opened`: a descriptor of that very file,
    whatever has its name meanwhile."""
    observer("lock", path, b"")
    os.utime(opened if opened is not None and os.utime in os.supports_fd else path, times)


def remove(path: Path) -> None:
    """A file; one that is not there is no error."""
    observer("remove", path, b"")
    path.unlink(missing_ok=True)


def remove_empty_folder(path: Path) -> None:
    observer("remove", path, b"")
    path.rmdir()


def remove_folder(path: Path) -> None:
    """With all that is in it."""
    if path.is_symlink():
        raise OSError(errno.ENOTDIR, "it is a link and not a folder", str(path))
    for inner, folders, files in os.walk(path, topdown=False):
        for name in sorted(files):
            remove(Path(inner, name))
        for name in sorted(folders):
            below = Path(inner, name)
            remove(below) if below.is_symlink() else remove_empty_folder(below)
    remove_empty_folder(path)
