"""pytest tests/experiment/test_state.py"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from triggerctl.errors import InputError
from triggerctl.experiment.process import ProcessIdentity, this_process
from triggerctl.experiment.state import (
    Progress,
    RunState,
    effective_status,
    last_lines,
    read_state,
    run_status,
    write_state,
)

NOW = datetime(2025, 6, 1, 12, 0, 0, tzinfo=UTC)


def test_a_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    state = RunState(
        status="running",
        hash="1-abc",
        strategy="naive",
        seed=5,
        epoch=1.5,
        epochs=3,
        step=10,
        steps=30,
        heartbeat=NOW,
        progress=Progress(loss=0.25, rates={"outcome": 0.5, "extra": None}),
    ).of(this_process())
    write_state(tmp_path / "state.json", state)
    assert read_state(tmp_path / "state.json") == state


def test_a_folder_without_a_state_is_pending(tmp_path: Path) -> None:
    assert read_state(tmp_path / "state.json") is None
    assert run_status(tmp_path) == (RunState(), "pending")


def test_a_state_of_a_later_version_is_read_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text('{"status": "done", "something_new": 1}')
    state = read_state(path)
    assert state is not None
    assert state.status == "done"
    path.write_text('{"status": "don')
    with pytest.raises(InputError, match=r"state\.json is damaged"):
        read_state(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("started", "2026-01-01T00:00:00"),
        ("heartbeat", "2026-01-01T00:00:00"),
        ("results", "../../elsewhere"),
        ("results", "/tmp"),
        ("results", ".."),
        ("results", "x" * 300),
        ("results", "a\0b"),
    ],
)
def test_a_time_without_a_zone_and_a_folder_elsewhere_are_damage(
    tmp_path: Path, key: str, value: str
) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"status": "running", key: value}), encoding="utf-8")
    with pytest.raises(InputError, match=r"state\.json is damaged") as caught:
        read_state(path)
    assert key in str(caught.value)


def test_running_is_believed_only_while_the_process_lives(tmp_path: Path) -> None:
    write_own_state = (
        "import sys\nfrom pathlib import Path\n"
        "from triggerctl.experiment.claim import claim\n"
        "from triggerctl.experiment.process import this_process\n"
        "from triggerctl.experiment.state import RunState, write_state\n"
        "path = Path(sys.argv[1])\n"
        "from datetime import UTC, datetime, timedelta\n"
        "then = datetime.now(UTC) - timedelta(seconds=20)\n"
        "write_state(path, RunState(status='running', heartbeat=then).of(this_process()))\n"
        "with claim(path.parent):\n"
        "    print('written', flush=True)\n    sys.stdin.readline()\n"
        "print('given back', flush=True)\nsys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", write_own_state, str(tmp_path / "state.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    assert run_status(tmp_path)[1] == "running"
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "given back\n"
    assert run_status(tmp_path)[1] == "stale"
    process.kill()
    process.communicate()
    assert run_status(tmp_path)[1] == "stale"


def test_a_killed_run_is_stale(tmp_path: Path) -> None:
    hold = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from triggerctl.experiment.claim import claim\n"
        "from triggerctl.experiment.process import this_process\n"
        "from triggerctl.experiment.state import RunState, write_state\n"
        "with claim(Path(sys.argv[1])):\n"
        "    write_state(Path(sys.argv[1], 'state.json'), RunState(status='running').of(this_process()))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", hold, str(tmp_path)], check=False)
    assert (tmp_path / ".lock").exists()
    assert run_status(tmp_path)[1] == "stale"


def test_a_run_on_another_host_is_stale_after_a_minute_without_any_sign() -> None:
    there = ProcessIdentity(host="another-host", pid=1, start="1")
    state = RunState(status="running", heartbeat=NOW - timedelta(seconds=90)).of(there)
    assert effective_status(state, now=NOW) == "stale"
    assert effective_status(state, now=NOW, lock_heartbeat=NOW - timedelta(seconds=20)) == "running"
    assert effective_status(state, now=NOW - timedelta(seconds=40)) == "running"


@pytest.mark.parametrize("status", ["pending", "done", "failed", "interrupted"])
def test_only_running_can_be_stale(status: str) -> None:
    state = RunState.model_validate({"status": status, "heartbeat": None})
    assert effective_status(state, now=NOW) == status


def test_the_last_lines_of_a_log_are_found_however_long_it_is(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    assert last_lines(log, 3) == []
    log.write_text("".join(f"line {number} ä\n" for number in range(50000)), encoding="utf-8")
    assert last_lines(log, 2) == ["line 49998 ä", "line 49999 ä"]
    log.write_text("only\nno end")
    assert last_lines(log, 9) == ["only", "no end"]
