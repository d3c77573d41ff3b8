"""Several processes that sweep one experiment at once: every run is trained once, and every process ends well
and tells what became of each run.

    python tests/end_to_end/many_sweeps.py              two processes, then eight, then two hosts
    python tests/end_to_end/many_sweeps.py --only dies --keep --folder /tmp/many

Another host is another name of this one: `unshare --uts` where that is permitted, else a replaced
socket.gethostname. Cases: two, eight, hosts, and of two hosts one that `dies` or is `suspended`, so that its
run is taken over when it has given no sign for a minute. Exit code 0 where all is as it must be, else 1."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from small_sweep import FINISHED, STRATEGIES, Place, end, faults

Say = Callable[[str], None]
HOSTS = ("first-host", "other-host")
CASES = ("two", "eight", "hosts", "dies", "suspended")
RENAMED = """
import os, socket
socket.gethostname = lambda: os.environ["AS_HOST"]
"""


def at_once(place: Place, processes: int, *, cells: int, hosts: Sequence[str] = ()) -> list[str]:
    """Sweep with so many processes at once, one run each at a time, from these hosts in turn; returns what is
    not as it must be."""
    logs = [place.root / f"sweep_{number}.log" for number in range(processes)]
    line = [*place.sweep_line, "--jobs", "1", "--threads", "1"]
    try:
        sweeps = [
            start(place, line, log, hosts[number % len(hosts)] if hosts else None)
            for number, log in enumerate(logs)
        ]
        codes = [sweep.wait() for sweep in sweeps]
        found = [f"process {number}: exit code {code}" for number, code in enumerate(codes) if code]
        return [*found, *told(place, logs), *trained_once(place), *faults(place, count=cells)]
    finally:
        end(place.processes())


def lost_host(place: Place, *, cells: int, suspend: bool, say: Say, patience: float = 60.0) -> list[str]:
    """One host begins, and its processes are killed or suspended in the midst of a run; another host's sweep
    must take the run over once `patience` seconds have gone by without a sign, and not before. A suspended
    one that wakes up again must leave it alone."""
    first, second = HOSTS
    line = [*place.sweep_line, "--jobs", "1", "--threads", "1"]
    logs = [place.root / "sweep_0.log", place.root / "sweep_1.log"]
    try:
        began = start(place, line, logs[0], first)
        while b"epoch 2 " not in _said(logs[0]) and began.poll() is None:
            time.sleep(0.05)
        theirs = [process for process in place.processes() if process.is_running()]
        _signal(theirs, signal.SIGSTOP)
        held = [run for run in place.runs if (run / ".lock").exists()]
        stopped = time.monotonic()
        if not suspend:
            _signal(theirs, signal.SIGKILL)
            began.wait()
        say(f"{first} {'suspended' if suspend else 'killed'} at {[_name(place, run) for run in held]}")
        other = start(place, line, logs[1], second)
        found = [] if len(held) == 1 else [f"{len(held)} runs are claimed"]
        owner = _holder(held[0]) if held else None
        while held and _holder(held[0]) in (owner, None) and other.poll() is None:
            time.sleep(0.1)
        waited = time.monotonic() - stopped
        say(f"{second} has taken it over after {waited:.0f} s")
        if waited < patience - 6:  # the last heartbeat came up to 5 s before the end
            found.append(f"taken over {waited:.0f} s after the last sign")
        if suspend:
            _signal(theirs, signal.SIGCONT)
            code = began.wait()
            say(f"{first} awake again, exit code {code}")
            found += [f"{first}: exit code {code}"] if code else []
            found += told(place, logs[:1])
        code = other.wait()
        found += [f"{second}: exit code {code}"] if code else []
        return [*found, *told(place, logs[1:]), *faults(place, count=cells)]
    finally:
        end(place.processes())


def start(place: Place, words: Sequence[str], log: Path, host: str | None) -> subprocess.Popen[bytes]:
    """A command as if on that host."""
    if host is None:
        return place.start(words, log)
    if _may_unshare():
        return place.start(
            words, log, before=["unshare", "--uts", "sh", "-c", f'hostname {host}; exec "$@"', "-"]
        )
    site = place.root / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(RENAMED, encoding="utf-8")
    path = os.pathsep.join([str(site), place.environment["PYTHONPATH"]])
    as_host = Place(place.root, place.seeds, {**place.variables, "PYTHONPATH": path, "AS_HOST": host})
    return as_host.start(words, log)


def _may_unshare() -> bool:
    with contextlib.suppress(OSError):
        done = subprocess.run(
            ["unshare", "--uts", "hostname", "other"], capture_output=True, check=False, timeout=20
        )
        return done.returncode == 0
    return False


def told(place: Place, logs: Sequence[Path]) -> list[str]:
    """Of which runs a sweep did not say what became of them: its lines, and the table or lines at its end."""
    found = []
    for log in logs:
        text = _said(log).decode()
        ends = [line.split()[1] for line in text.splitlines() if line.startswith(("done ", "skipped "))]
        names = {_name(place, run) for run in place.runs}
        found += [f"{log.name}: not told of {name}" for name in sorted(names - set(ends))]
        found += [f"{log.name}: told twice of {name}" for name, times in Counter(ends).items() if times > 1]
    return found


def trained_once(place: Place) -> list[str]:
    """Runs whose log says that they were begun, or finished, more than once."""
    found = []
    for run in place.runs:
        log = (run / "run.log").read_text(encoding="utf-8")
        for what in (" updates on ", FINISHED):
            if log.count(what) != 1:
                found.append(f"{_name(place, run)}: {log.count(what)} times{what}")
    return found


def _said(log: Path) -> bytes:
    return log.read_bytes() if log.exists() else b""


def _name(place: Place, run: Path) -> str:
    return run.relative_to(place.folder).as_posix()


def _holder(run: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((run / ".lock").read_text(encoding="utf-8"))["token"])
    return None


def _signal(processes: Sequence[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def case(name: str, root: Path, say: Say) -> list[str]:
    """One of `CASES` on an experiment of its own."""
    cells = 3 * len(STRATEGIES)
    if name in ("dies", "suspended"):
        place = Place(root / name, (1,)).write({"naive": [{}], "kl_divergence": [{}]})
        return lost_host(place, cells=2, suspend=name == "suspended", say=say)
    place = Place(root / name).write(epochs=2)
    hosts = HOSTS if name == "hosts" else ()
    return at_once(place, {"two": 2, "eight": 8, "hosts": 4}[name], cells=cells, hosts=hosts)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=CASES, action="append", help="a case; several may be given")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--keep", action="store_true", help="leave the folder there")
    asked = parser.parse_args()
    bad = 0
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="triggerctl-many-")
        root = (asked.folder or Path(stack.enter_context(temporary))).absolute()
        for name in asked.only or CASES:
            began = time.monotonic()
            found = case(name, root, lambda text: print(f"  {text}", flush=True))
            for fault in found:
                print(f"FAULT: {name}: {fault}")
            verdict = "every run once" if not found else f"{len(found)} faults"
            print(f"{name}: {verdict} ({time.monotonic() - began:.0f} s)", flush=True)
            bad += bool(found)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
