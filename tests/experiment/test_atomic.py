"""pytest tests/experiment/test_atomic.py"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triggerctl.errors import InputError
from triggerctl.experiment.atomic import (
    atomic_file,
    atomic_folder,
    clear_unfinished_writes,
    make_folder,
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
