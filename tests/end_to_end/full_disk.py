"""A sweep whose disk fills up in the middle: a small tmpfs, given more room afterwards. Needs the right to
mount (root).

    python tests/end_to_end/full_disk.py --megabytes 40
    python tests/end_to_end/full_disk.py --folder /tmp/full --keep

While it is full the sweep must fail with the reason, and leave nothing half-written that a reader could take
for whole; the same command, once there is room, must end as an undisturbed sweep does. Exit code 0 where all
is as it must be, else 1, and 3 where mounting is not permitted."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from small_sweep import SEEDS, STRATEGIES, Place, end, faults

Say = Callable[[str], None]
REASON = "No space left on device"
PLENTY = 2000
NOT_PERMITTED = 3


class MountError(Exception):
    """Mounting is not permitted here."""


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A disk of that size on the folder."""
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def make_room(folder: Path, megabytes: int) -> None:
    _mount("-o", f"remount,size={megabytes}m", str(folder))


def _mount(*words: str) -> None:
    try:
        done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    except OSError as error:
        raise MountError(str(error)) from error
    if done.returncode:
        raise MountError(done.stderr.strip())


def fill_up(
    root: Path,
    megabytes: int,
    say: Say,
    *,
    strategies: Mapping[str, Any] = STRATEGIES,
    seeds: tuple[int, ...] = SEEDS,
    finetune: Mapping[str, Any] | None = None,
    like: Place | None = None,
) -> list[str]:
    """Sweep on a disk of `megabytes`, then with room; returns what is not as it must be."""
    count = len(strategies) * len(seeds)
    place = Place(root / "full", seeds)
    with small_disk(place.root / "experiments", megabytes):
        place.write(strategies, **(finetune or {}))
        log = place.root / "sweeps.log"
        try:
            code = place.sweep(log)
            found = [] if code == 1 else [f"exit code {code} on a full disk"]
            text = log.read_text(encoding="utf-8")
            found += _while_full(place, text, say)
            make_room(place.root / "experiments", PLENTY)
            code = place.sweep(log)
            more = log.read_text(encoding="utf-8")[len(text) :]
            say(f"with room: exit code {code}, {more.count('done  ')} lines say done")
            found += [f"exit code {code} with room"] if code else []
            return found + faults(place, count=count, like=like)
        finally:
            end(place.processes())


def _while_full(place: Place, text: str, say: Say) -> list[str]:
    found = []
    states = {run: _state(run) for run in place.runs}
    told = Counter(state["status"] if state else "none" for state in states.values())
    say(f"full: states {dict(told)}, {text.count(REASON)} times on the screen: {REASON}")
    for run, state in states.items():
        name = run.relative_to(place.folder).as_posix()
        if state and state["status"] == "failed" and REASON not in (state["error"] or ""):
            found.append(f"{name}: its state says {state['error']}")
        if (state is None or state["status"] != "done") and name not in text:
            found.append(f"{name}: not on the screen")
        for results in run.glob("results/*/results.json"):
            json.loads(results.read_text(encoding="utf-8"))
    if not any(state and state["status"] == "failed" for state in states.values()):
        found.append("no state says failed")
    if "defect" in text or "Traceback" in text:
        found.append("it is called a defect")
    status = place.start(["status", "exp", "--json"], place.root / "status.log")
    if status.wait():
        found.append("status fails")
    for run in json.loads((place.root / "status.log").read_text(encoding="utf-8"))[0]["runs"]:
        if run["state"] == "running":
            found.append(f"status says that {run['name']} is running")
    return found


def _state(run: Path) -> dict[str, Any] | None:
    with contextlib.suppress(FileNotFoundError):
        return dict(json.loads((run / "state.json").read_text(encoding="utf-8")))
    return None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=40, help="the disk's size (default 40)")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--keep", action="store_true", help="leave the output there")
    asked = parser.parse_args()
    root = (asked.folder or Path(tempfile.mkdtemp(prefix="triggerctl-full-"))).absolute()

    def say(text: str) -> None:
        print(text, flush=True)

    began = time.monotonic()
    peaceful = Place(root / "peaceful").write()
    try:
        code = peaceful.sweep(root / "peaceful" / "sweeps.log")
        say(f"undisturbed: exit code {code}, {time.monotonic() - began:.0f} s")
        found = fill_up(root, asked.megabytes, say, like=peaceful)
    except MountError as error:
        say(f"mounting is not permitted here: {error}")
        return NOT_PERMITTED
    for fault in found:
        say(f"FAULT: {fault}")
    verdict = "nothing lost" if not found else f"{len(found)} faults"
    say(f"{verdict}: a disk of {asked.megabytes} MB, {time.monotonic() - began:.0f} s")
    if not asked.keep and not found:
        shutil.rmtree(root)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
