"""pytest tests/experiment/test_cache.py"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triggerctl.errors import InputError
from triggerctl.experiment.cache import (
    Cache,
    cache_limit,
    cache_root,
    clear_cache_leavings,
    entry_name,
    mark_used,
    read_document,
    trim_cache,
    write_document,
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIGGERCTL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entry(path: Path, size: int, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    at = time.time() - days * 86400
    os.utime(path, (at, at))
    return path


def test_the_variable_moves_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_root() == cache
    monkeypatch.delenv("TRIGGERCTL_CACHE")
    assert cache_root().name == "triggerctl"


def test_what_was_not_used_for_longest_goes_first_and_only_as_much_as_needed(cache: Path) -> None:
    oldest = entry(cache / "downloads" / "a", 100, days=9)
    used = entry(cache / "downloads" / "b", 100, days=8)
    entry(cache / "planes" / "c" / "plane", 100, days=2)
    two_days_ago = time.time() - 2 * 86400
    os.utime(cache / "planes" / "c", (two_days_ago, two_days_ago))
    mark_used(used)
    assert trim_cache(200) == ["downloads/a"]
    assert not oldest.exists()
    assert trim_cache(100) == ["planes/c"]
    assert used.exists()


def test_what_was_used_within_the_hour_stays_whatever_the_limit(cache: Path) -> None:
    entry(cache / "downloads" / "a", 100, days=0)
    assert trim_cache(0) == []


def test_a_cache_that_is_not_there_holds_nothing(cache: Path) -> None:
    assert trim_cache(0) == []


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ("", 20 * 1024**3),
        ("20 GiB", 20 * 1024**3),
        ("1.5gib", 3 * 1024**3 // 2),
        ("800 MB", 800 * 1000**2),
        ("2TB", 2 * 1000**4),
        (" 64 KiB ", 65536),
        ("4096", 4096),
        ("0", 0),
    ],
)
def test_the_limit_is_a_number_and_a_unit(said: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIGGERCTL_CACHE_LIMIT", said)
    assert cache_limit() == size


@pytest.mark.parametrize("said", ["much", "-1", "20 giga", "GiB", "1,5 GB", "1e3"])
def test_a_limit_that_is_no_size_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIGGERCTL_CACHE_LIMIT", said)
    with pytest.raises(InputError, match="is not a size") as refused:
        Cache()
    assert "TRIGGERCTL_CACHE_LIMIT" in str(refused.value)


def test_the_limit_of_the_environment_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIGGERCTL_CACHE_LIMIT", "150 B")
    entry(cache / "downloads" / "a", 100, days=9)
    entry(cache / "downloads" / "b", 100, days=8)
    assert trim_cache() == ["downloads/a"]


def test_locks_stay_and_what_cannot_be_removed_does_not_stop_the_rest(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry(cache / "planes" / "a.lock", 0, days=9)
    held = entry(cache / "planes" / "b", 100, days=8)
    entry(cache / "planes" / "c", 100, days=7)
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path == held:
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    assert trim_cache(0) == ["planes/c"]
    assert (cache / "planes" / "a.lock").exists()


def written(cache: Cache, name: str, content: object) -> None:
    cache.keep(f"kind/{name}", lambda path: write_document(path, content))


def test_an_entry_is_computed_once_and_named(cache: Path) -> None:
    computed: list[int] = []

    def compute() -> object:
        computed.append(1)
        return {"a": 0.1, "b": [None, True]}

    for _ in range(2):
        mine = Cache()
        found = mine.obtain("kind/a", compute, reader=read_document, writer=write_document)
        assert found == {"a": 0.1, "b": [None, True]}
        assert mine.used == ["kind/a"]
    assert computed == [1]


def test_reading_an_entry_puts_off_its_end(cache: Path) -> None:
    written(Cache(), "a", [1])
    month_ago = time.time() - 30 * 86400
    os.utime(cache / "kind" / "a", (month_ago, month_ago))
    assert Cache().read("kind/a", read_document) == [1]
    assert trim_cache(0) == []


@pytest.mark.parametrize("damage", [b"", b"nonsense", "cut", "changed"])
def test_a_damaged_entry_is_none_and_goes(damage: bytes | str, cache: Path) -> None:
    written(Cache(), "a", list(range(1000)))
    path = cache / "kind" / "a"
    content = bytearray(path.read_bytes())
    if damage == "changed":
        content[len(content) // 2] ^= 1
    path.write_bytes(damage if isinstance(damage, bytes) else content[: -(damage == "cut") or None])
    mine = Cache()
    assert mine.read("kind/a", read_document) is None
    assert not path.exists()
    assert mine.used == []


def test_a_cache_that_is_switched_off_neither_gives_nor_takes(cache: Path) -> None:
    written(Cache(), "a", [1])
    off = Cache(enabled=False)
    assert off.read("kind/a", read_document) is None
    written(off, "b", [2])
    assert [path.name for path in (cache / "kind").iterdir()] == ["a"]
    assert off.used == []


def test_an_entry_too_large_for_the_limit_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIGGERCTL_CACHE_LIMIT", "400 B")
    for size in (100, 101):
        Cache().keep(f"kind/{size}", lambda path, size=size: path.write_bytes(b"x" * size), size=size)  # type: ignore[misc]
    assert [path.name for path in (cache / "kind").iterdir()] == ["100"]


def test_a_run_that_added_something_brings_the_cache_under_its_limit(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIGGERCTL_CACHE_LIMIT", "4 KiB")
    old = entry(cache / "kind" / "old", 5000, days=2)
    reader, adder = Cache(), Cache()
    reader.trim()
    assert old.exists()
    written(adder, "new", [1])
    adder.trim()
    assert not old.exists()
    assert (cache / "kind" / "new").exists()


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRIGGERCTL_CACHE", str(tmp_path / "file" / "cache"))
    mine = Cache()
    found = mine.obtain("kind/a", lambda: [1], reader=read_document, writer=write_document)
    assert found == [1]
    assert mine.used == []


def test_numbers_keep_every_bit(cache: Path) -> None:
    numbers = [0.1 + 0.2, float("nan"), float("-inf"), -0.0, 1e-310]
    written(Cache(), "a", numbers)
    assert repr(Cache().read("kind/a", read_document)) == repr(numbers)


def test_equal_values_have_one_name() -> None:
    assert entry_name({"a": 1, "b": [1, None]}) == entry_name({"b": [1, None], "a": 1})
    assert entry_name({"a": 1}) != entry_name({"a": 1.5})
    assert entry_name({"a": "1"}) != entry_name({"a": 1})


def test_what_killed_processes_left_goes(cache: Path) -> None:
    code = (
        "import os, signal\n"
        "from triggerctl.experiment.atomic import atomic_file\n"
        "from triggerctl.experiment.cache import cache_root\n"
        "from triggerctl.experiment.claim import claim\n"
        "place = cache_root() / 'planes'\nplace.mkdir(parents=True)\n"
        "with claim(place, name='.key.lock'), atomic_file(place / 'key') as file:\n"
        "    file.touch()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    entry(cache / "planes" / "kept", 10, days=3)
    assert len(list((cache / "planes").iterdir())) == 3
    clear_cache_leavings()
    assert [path.name for path in (cache / "planes").iterdir()] == ["kept"]
