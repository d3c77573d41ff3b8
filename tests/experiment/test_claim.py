"""pytest tests/experiment/test_claim.py: real processes that race, die and come back."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from triggerctl import disk
from triggerctl.errors import BusyError, InputError, LostClaimError, RunError
from triggerctl.experiment.claim import STALE_SECONDS, claim, clear_stale_claims, holder_of
from triggerctl.experiment.process import ProcessIdentity, is_alive, this_process

SPAWN = multiprocessing.get_context("spawn")
ROUNDS = 25
RACERS = 5

HOLD = """
import sys, time
from pathlib import Path
from triggerctl.experiment.claim import claim
with claim(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

TAKE_TURNS = """
import sys, time
from pathlib import Path
from triggerctl.errors import BusyError
from triggerctl.experiment.atomic import write_text_atomic
from triggerctl.experiment.claim import claim
from triggerctl.experiment.process import ProcessIdentity, is_alive, this_process
folder, until, turns = Path(sys.argv[1]), time.monotonic() + float(sys.argv[2]), 0
inside, me = folder / "inside", this_process()
while time.monotonic() < until:
    try:
        with claim(folder):
            # Whole, and told from a killed process not yet reaped: what a victim leaves is no holder.
            if inside.exists():
                other = ProcessIdentity.model_validate_json(inside.read_text())
                if is_alive(other):
                    sys.exit(f"{me} and {other} hold the claim")
            write_text_atomic(inside, me.model_dump_json())
            time.sleep(0.001)
            if inside.read_text() != me.model_dump_json():
                sys.exit(f"{inside.read_text()} came in beside {me}")
            inside.unlink()
            turns += 1
    except BusyError:
        time.sleep(0.001)
print(turns)
"""


def start_holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def write_claim(lock: Path, process: ProcessIdentity, *, age: float) -> None:
    """A claim as another process left it, `age` seconds since its last heartbeat."""
    said = {
        "token": "0123456789abcdef",
        "started": "2025-01-01T00:00:00+00:00",
        "process": process.model_dump(),
    }
    lock.write_text(json.dumps(said))
    at = time.time() - age
    os.utime(lock, (at, at))


def dead_process() -> ProcessIdentity:
    """On this host, of a number that lives and a start that was another one's."""
    me = this_process()
    return me.model_copy(update={"start": me.start.rpartition("-")[0] + "-0"})


def elsewhere() -> ProcessIdentity:
    return ProcessIdentity(host="another-host", pid=os.getpid(), start="1")


def race(folder: str, rounds: int, ready: Barrier, done: Barrier, wins: list[tuple[int, int]]) -> None:
    for number in range(rounds):
        ready.wait(60)
        try:
            with claim(Path(folder, str(number))):
                wins.append((number, os.getpid()))
                done.wait(60)
        except BusyError:
            done.wait(60)


def test_of_many_that_race_for_a_stale_claim_exactly_one_gets_it_every_time(tmp_path: Path) -> None:
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        if number % 3:
            write_claim(
                folder / ".lock", dead_process() if number % 3 == 1 else elsewhere(), age=STALE_SECONDS + 1
            )
    with SPAWN.Manager() as manager:
        wins = manager.list()
        ready, done = SPAWN.Barrier(RACERS), SPAWN.Barrier(RACERS)
        racers = [
            SPAWN.Process(target=race, args=(str(tmp_path), ROUNDS, ready, done, wins)) for _ in range(RACERS)
        ]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join(120)
        assert [racer.exitcode for racer in racers] == [0] * RACERS
        assert sorted(number for number, _ in wins) == list(range(ROUNDS))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_two_never_hold_one_claim_though_holders_are_killed_at_random(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TAKE_TURNS, str(tmp_path)]
    workers = [subprocess.Popen([*command, "4"], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    killed = 0
    until = time.monotonic() + 3
    while time.monotonic() < until:
        victim = subprocess.Popen([*command, "4"], stdout=subprocess.DEVNULL)
        time.sleep(0.6)
        victim.send_signal(signal.SIGKILL)
        killed += victim.wait() == -signal.SIGKILL
    turns = [int(worker.communicate(timeout=60)[0] or 0) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert killed >= 3
    assert sum(turns) > len(turns)  # how many fit in is the machine's affair


def test_a_held_claim_names_its_holder_and_is_free_after_it(tmp_path: Path) -> None:
    with claim(tmp_path):
        with pytest.raises(BusyError) as caught, claim(tmp_path):
            pass
        assert str(os.getpid()) in caught.value.problems[0].what
        assert caught.value.exit_code == 2
        holder = holder_of(tmp_path)
        assert holder is not None
        assert holder.process == this_process()
    assert holder_of(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_claim_is_stale_at_once_when_its_process_was_killed(tmp_path: Path) -> None:
    holder = start_holder(tmp_path)
    with pytest.raises(BusyError, match=str(holder.pid)), claim(tmp_path):
        pass
    holder.kill()
    # Not reaped yet: a process that ended counts as gone even while its parent has not asked for it.
    time.sleep(0.2)
    started = time.monotonic()
    with claim(tmp_path):
        assert time.monotonic() - started < 2
    holder.wait()
    assert holder.stdout is not None
    holder.stdout.close()


def test_a_live_process_keeps_its_claim_however_old_its_heartbeat(tmp_path: Path) -> None:
    write_claim(tmp_path / ".lock", this_process(), age=86400)
    with pytest.raises(BusyError), claim(tmp_path):
        pass


@pytest.mark.parametrize(("age", "free"), [(STALE_SECONDS - 5, False), (STALE_SECONDS + 5, True)])
def test_a_claim_from_another_host_is_stale_after_a_minute_of_silence(
    tmp_path: Path, age: float, free: bool
) -> None:
    write_claim(tmp_path / ".lock", elsewhere(), age=age)
    if free:
        with claim(tmp_path):
            pass
    else:
        with pytest.raises(BusyError, match="another-host"), claim(tmp_path):
            pass


def test_a_process_of_another_container_is_not_looked_up_by_number(tmp_path: Path) -> None:
    other = dead_process().model_copy(update={"namespace": "pid:[1]"})
    write_claim(tmp_path / ".lock", other, age=1)
    with pytest.raises(BusyError), claim(tmp_path):
        pass


def test_a_takeover_that_died_half_way_does_not_block_the_next(tmp_path: Path) -> None:
    write_claim(tmp_path / ".lock", dead_process(), age=10)
    write_claim(tmp_path / ".lock.over.0123456789abcdef", dead_process(), age=10)
    with claim(tmp_path):
        holder = holder_of(tmp_path)
        assert holder is not None
        assert holder.process == this_process()
    assert holder_of(tmp_path) is None


def test_a_damaged_lock_counts_as_held_until_it_is_old(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    lock.write_text('{"tok')
    with pytest.raises(BusyError), claim(tmp_path):
        pass
    at = time.time() - STALE_SECONDS - 5
    os.utime(lock, (at, at))
    with claim(tmp_path):
        pass


def test_a_claim_taken_over_is_noticed_by_the_heartbeat_and_not_released(tmp_path: Path) -> None:
    with claim(tmp_path, heartbeat=0.02) as held:
        held.check()
        write_claim(tmp_path / ".lock.other", elsewhere(), age=0)
        (tmp_path / ".lock.other").replace(tmp_path / ".lock")
        assert held.lost.wait(5)
        with pytest.raises(RunError, match="taken over"):
            held.check()
    holder = holder_of(tmp_path)
    assert holder is not None
    assert holder.process == elsewhere()


def test_who_was_out_of_touch_looks_before_it_believes_in_its_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was suspended notices before it writes, not only at its next heartbeat."""
    with claim(tmp_path, heartbeat=600) as held:
        write_claim(tmp_path / ".lock.other", elsewhere(), age=0)
        (tmp_path / ".lock.other").replace(tmp_path / ".lock")
        now = time.time()
        monkeypatch.setattr("triggerctl.experiment.claim.time.time", lambda: now + 1300)
        with pytest.raises(LostClaimError, match="taken over"):
            held.check()
    (tmp_path / ".lock").unlink()


def test_things_in_one_folder_are_claimed_by_name_and_stale_claims_taken_off(tmp_path: Path) -> None:
    write_claim(tmp_path / ".dead.lock", dead_process(), age=1)
    write_claim(tmp_path / ".far.lock", elsewhere(), age=STALE_SECONDS + 1)
    write_claim(tmp_path / ".near.lock", elsewhere(), age=1)
    with claim(tmp_path, name=".ours.lock"), claim(tmp_path, name=".other.lock"):
        with pytest.raises(BusyError), claim(tmp_path, name=".ours.lock"):
            pass
        clear_stale_claims(tmp_path)
        left = sorted(path.name for path in tmp_path.iterdir())
        assert left == [".near.lock", ".other.lock", ".ours.lock"]
    assert [path.name for path in tmp_path.iterdir()] == [".near.lock"]


def test_the_heartbeat_moves_while_the_claim_is_held(tmp_path: Path) -> None:
    with claim(tmp_path, heartbeat=0.02):
        os.utime(tmp_path / ".lock", (1, 1))
        until = time.monotonic() + 5
        while (tmp_path / ".lock").stat().st_mtime < 10 and time.monotonic() < until:
            time.sleep(0.01)
        assert time.time() - (tmp_path / ".lock").stat().st_mtime < 60


def test_a_forked_child_does_not_give_the_parents_claim_back(tmp_path: Path) -> None:
    code = f"""
import os, warnings
from pathlib import Path
from triggerctl.experiment.claim import claim, holder_of
warnings.simplefilter("ignore")
folder = Path({str(tmp_path)!r})
with claim(folder):
    child = os.fork()
    if child == 0:
        raise SystemExit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert holder_of(folder) is not None
assert holder_of(folder) is None
"""
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_of_many_threads_one_gets_the_claim(tmp_path: Path) -> None:
    start, enough = threading.Barrier(8), threading.Barrier(8)
    wins: list[int] = []

    def attempt(number: int) -> None:
        start.wait()
        try:
            with claim(tmp_path):
                wins.append(number)
                enough.wait(30)
        except BusyError:
            enough.wait(30)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1


def test_claims_hold_on_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    write_claim(tmp_path / ".lock", dead_process(), age=10)
    with claim(tmp_path), pytest.raises(BusyError), claim(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_attempts_are_cleared_by_the_next_holder(tmp_path: Path) -> None:
    write_claim(tmp_path / ".lock.aaaa", dead_process(), age=1)
    write_claim(tmp_path / ".lock.bbbb", elsewhere(), age=7200)
    write_claim(tmp_path / ".lock.cccc", elsewhere(), age=10)
    write_claim(tmp_path / ".lock.dddd", this_process(), age=10)
    with claim(tmp_path):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock.cccc", ".lock.dddd"]


def test_what_cannot_be_cleared_away_keeps_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".lock.aaaa").mkdir()
    write_claim(tmp_path / ".lock.bbbb", dead_process(), age=1)
    remove = disk.remove

    def refuse(path: Path) -> None:
        if path.name.endswith((".tmp", ".bbbb")):
            raise OSError(errno.EIO, "broken", str(path))
        remove(path)

    monkeypatch.setattr(disk, "remove", refuse)
    with claim(tmp_path):
        assert holder_of(tmp_path) is not None
    assert holder_of(tmp_path) is None


def test_a_folder_that_cannot_be_claimed_is_the_users_input(tmp_path: Path) -> None:
    with pytest.raises(InputError), claim(tmp_path / "missing"):
        pass


def test_this_process_is_alive_and_one_with_another_start_is_not() -> None:
    assert is_alive(this_process())
    assert not is_alive(dead_process())
    assert not is_alive(this_process().model_copy(update={"pid": 2**22 + 1}))


def test_a_namesake_of_this_host_is_another_one_if_it_was_booted_at_another_time(tmp_path: Path) -> None:
    """Two machines made from one image: whose process it is can't be looked up, so signs of life count."""
    namesake = this_process().model_copy(update={"start": "0000beef-1"})
    write_claim(tmp_path / ".lock", namesake, age=1)
    with pytest.raises(BusyError), claim(tmp_path):
        pass
    write_claim(tmp_path / ".lock", namesake, age=STALE_SECONDS + 1)
    with claim(tmp_path):
        pass
