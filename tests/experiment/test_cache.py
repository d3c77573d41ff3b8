"""pytest tests/experiment/test_cache.py"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triggerctl.experiment.cache import cache_root, clear_cache_leavings, mark_used, trim_cache


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
