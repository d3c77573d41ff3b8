"""pytest tests/experiment/test_atomic.py"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from triggerctl.errors import InputError, RunError
from triggerctl.experiment.atomic import (
    atomic_file,
    atomic_folder,
    clear_unfinished_writes,
    create_json_atomic,
    make_folder,
    unfinished_writes,
    write_json_atomic,
    write_text_atomic,
)

WRITER = """
import sys
from pathlib import Path
from triggerctl.experiment.atomic import write_json_atomic
path, number = Path(sys.argv[1]), 0
while True:
    number += 1
    write_json_atomic(path, {"number": number, "filling": [number] * 20000})
    print(number, flush=True)
"""


def test_a_kill_in_the_midst_of_writing_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    chance = random.Random(0)
    last = 0
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as p:
            assert p.stdout is not None
            p.stdout.readline()
            time.sleep(chance.uniform(0, 0.05))
            os.kill(p.pid, signal.SIGKILL)
            said = [int(line) for line in p.stdout if line.strip()]
        document = json.loads(path.read_text())
        assert document["filling"] == [document["number"]] * 20000
        assert document["number"] >= (said[-1] if said else 1)
        last += 1
    assert last == 12
    clear_unfinished_writes(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None
        p.stdout.readline()
        seen = set()
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            document = json.loads(path.read_text())
            assert len(document["filling"]) == 20000
            seen.add(document["number"])
        p.kill()
    assert len(seen) > 1


def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def draw() -> None:
        with atomic_file(path) as temporary:
            temporary.write_bytes(b"half")
            raise ValueError("no figure")

    with pytest.raises(ValueError, match="no figure"):
        draw()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "ours", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_appears_whole_and_is_never_replaced(tmp_path: Path) -> None:
    target = tmp_path / "step_10"
    with atomic_folder(target) as temporary:
        (temporary / "weights").write_bytes(b"1")
        (temporary / "inner").mkdir()
        (temporary / "inner" / "state").write_bytes(b"2")
        assert not target.exists()
    assert (target / "inner" / "state").read_bytes() == b"2"
    with pytest.raises(InputError), atomic_folder(target) as temporary:
        (temporary / "weights").write_bytes(b"3")
    assert (target / "weights").read_bytes() == b"1"
    assert list(tmp_path.iterdir()) == [target]


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "x.json", {"losses": (1.5, float("nan"), float("inf"))})
    assert json.loads((tmp_path / "x.json").read_text()) == {"losses": [1.5, None, None]}


@pytest.mark.parametrize("where", ["file/inside", "/proc/triggerctl"])
def test_a_path_that_cannot_be_written_is_the_users_input_with_a_mend(tmp_path: Path, where: str) -> None:
    if where.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(InputError) as caught:
        make_folder(tmp_path / where)
    assert caught.value.exit_code == 2
    assert "TRIGGERCTL_ROOT" in (caught.value.problems[0].mend or "")
    with pytest.raises(InputError):
        write_text_atomic(tmp_path / where, "x")


def test_only_what_dead_processes_were_writing_is_cleared(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from triggerctl.experiment.atomic import atomic_file, atomic_folder\n"
        "with atomic_file(Path(sys.argv[1], 'a.b.json')) as file, atomic_folder(Path(sys.argv[1], 'c')):\n"
        "    file.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(unfinished_writes(tmp_path)) == 2
    hour_ago = time.time() - 3700
    for name in (".x.0123abcd-1-2.89abcdef.tmp", ".y.0123abcd-1-2.89abcdef.tmp"):
        (tmp_path / name).write_text("another host's")
    os.utime(tmp_path / ".x.0123abcd-1-2.89abcdef.tmp", (hour_ago, hour_ago))
    with atomic_file(tmp_path / "ours") as temporary:
        temporary.write_text("ours")
        # What is written in the place of a temporary file is ours as well.
        with atomic_file(temporary) as inner:
            inner.write_text("ours")
            clear_unfinished_writes(tmp_path)
            assert inner.exists()
        assert temporary.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".y.0123abcd-1-2.89abcdef.tmp", "ours"]


CLEARER = """
import sys
from pathlib import Path
from triggerctl.experiment.atomic import clear_unfinished_writes
while True:
    clear_unfinished_writes(Path(sys.argv[1]))
    print(flush=True)
"""


def test_a_file_is_created_while_others_clear_up(tmp_path: Path) -> None:
    """As sweeps do that start together."""
    with subprocess.Popen([sys.executable, "-c", CLEARER, str(tmp_path)], stdout=subprocess.PIPE) as clearer:
        assert clearer.stdout is not None
        clearer.stdout.readline()
        try:
            made = [create_json_atomic(tmp_path / f"{number}.json", {}) for number in range(300)]
        finally:
            clearer.kill()
    assert made == [True] * 300


def test_of_many_that_create_a_file_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: create_json_atomic(path, {"by": number}), range(8)))
    assert made.count(True) == 1
    assert json.loads(path.read_text()) == {"by": made.index(True)}

    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert create_json_atomic(tmp_path / "other.json", {})
    assert not create_json_atomic(tmp_path / "other.json", {"by": 1})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.json", "record.json"]


def _as_rust(path: Path) -> None:
    raise ValueError("Error while serializing: I/O error: No space left on device (os error 28)")


def _as_torch(path: Path) -> None:
    try:
        raise OSError(28, "No space left on device")
    except OSError:
        raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904 - as torch does


@pytest.mark.parametrize("write", [_as_rust, _as_torch])
def test_a_full_disk_is_told_as_one_whoever_writes(tmp_path: Path, write: Callable[[Path], None]) -> None:
    with (
        pytest.raises(RunError, match="No space left on device") as caught,
        atomic_file(tmp_path / "x") as file,
    ):
        write(file)
    assert "free some space" in (caught.value.problems[0].mend or "")
    assert list(tmp_path.iterdir()) == []
