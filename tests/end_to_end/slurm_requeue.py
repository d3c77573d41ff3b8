"""A sweep on a real Slurm (slurmctld and slurmd, of this machine or another): a job array, of which one job
is cancelled, one is sent the signal of a pre-emption and one is queued again by Slurm itself, each in the
middle of its run. Every run then stands where it should; the same command submits what is missing, and only
that; and the results are those of runs that were never disturbed.

Run: python tests/end_to_end/slurm_requeue.py [FOLDER]   (needs the extra `slurm`, and a Slurm whose default
partition takes jobs of one core; a few minutes. FOLDER must be seen by the nodes.)"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
for part in (TESTS, TESTS / "sweep", TESTS.parent):
    sys.path.insert(0, str(part))
os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (TESTS / "sweep", TESTS.parent)))

from engine import left_behind, run, state  # noqa: E402
from launched import Told, sweep  # noqa: E402

from triggerctl.cli.app import main  # noqa: E402
from triggerctl.experiment.layout import ExperimentFolder  # noqa: E402
from triggerctl.sweep.launchers.slurm import SlurmLauncher  # noqa: E402
from triggerctl.sweep.launchers.slurm_options import parse_slurm_options  # noqa: E402

SEEDS = (1, 2, 3)
BEGAN = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGAN:6.1f} s  {text}", flush=True)


def slurm(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def new_experiment(root: Path) -> Path:
    assert main(["--root", str(root), "init", "exp", "--template", "quickstart"]) == 0
    return root / "exp"


def results(folder: Path) -> dict[str, object]:
    (found,) = (folder / "results").iterdir()
    return left_behind(found)


def launch(folder: Path, *, wait: bool) -> Told:
    options = parse_slurm_options(["time=30", "mem=1500M"])
    launcher = SlurmLauncher(ExperimentFolder(folder), options, wait=wait, look_seconds=2.0)
    told = sweep(folder, launcher, seeds=SEEDS)
    for text in told.notes:
        say(text)
    say(str({name: outcome.reason for name, outcome in sorted(told.ended_with.items())}))
    return told


def wait_for(folder: Path, fits: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    until = time.monotonic() + 240
    while time.monotonic() < until:
        if (folder / "state.json").is_file() and fits(seen := state(folder)):
            say(f"{folder.name}: {what}: {seen['status']}, update {seen['step']} of {seen['steps']}")
            return seen
        time.sleep(0.2)
    raise AssertionError(f"{folder.name}: never {what}; {slurm('squeue', '-r')}")


def in_the_middle(seen: dict[str, Any]) -> bool:
    return bool(seen["status"] == "running" and seen["epoch"] > 1.1 and seen["step"] < seen["steps"] - 20)


def go(root: Path) -> None:
    os.environ.setdefault("TRIGGERCTL_CACHE", str(root / "cache"))
    folder = new_experiment(root / "disturbed")
    first = launch(folder, wait=False)
    assert set(first.outcomes.values()) == {"submitted"}
    (record,) = (folder / "sweeps" / "slurm").glob("*.json")
    array = record.stem
    say(slurm("squeue", "-r", "--format=%i %j %T %M", f"--jobs={array}"))

    second = launch(folder, wait=False)
    assert "not submitted again" in second.notes[0]
    assert list((folder / "sweeps" / "slurm").glob("*.json")) == [record]

    cancelled, preempted, requeued = (folder / f"seed_{seed}" for seed in SEEDS)
    wait_for(cancelled, in_the_middle, "in the middle")
    slurm("scancel", f"{array}_0")
    say(f"scancel {array}_0")
    wait_for(cancelled, lambda seen: seen["status"] == "interrupted", "stopped by scancel")
    assert not (cancelled / ".lock").exists()

    wait_for(preempted, in_the_middle, "in the middle")
    slurm("scancel", "--signal=USR2", f"{array}_1")
    say(f"scancel --signal=USR2 {array}_1")
    stopped = wait_for(preempted, lambda seen: seen["status"] == "interrupted", "stopped by USR2")
    assert stopped["step"] > 0
    say(slurm("squeue", "-r", "--format=%i %T %r %M", f"--jobs={array}"))

    wait_for(requeued, in_the_middle, "in the middle")
    slurm("scontrol", "requeue", f"{array}_2")
    say(f"scontrol requeue {array}_2")
    wait_for(requeued, lambda seen: seen["status"] == "interrupted", "stopped by Slurm")

    last = launch(folder, wait=True)
    assert set(last.outcomes.values()) == {"done"}
    records = sorted((folder / "sweeps" / "slurm").glob("*.json"))
    assert len(records) == 2, "one array, and one job for what was cancelled"
    for seed in SEEDS:
        name = f"seed_{seed}"
        log = (folder / name / "run.log").read_text(encoding="utf-8").splitlines()
        say(f"{name} run.log: " + " | ".join(line for line in log if "resum" in line.lower()))
        alone = new_experiment(root / f"alone_{seed}")
        (alone / name).mkdir()
        config = folder / name / "config.json"
        (alone / name / "config.json").write_text(config.read_text(encoding="utf-8"), encoding="utf-8")
        run(alone / name)
        expected, found = results(alone / name), results(folder / name)
        assert expected.keys() == found.keys()
        different = [key for key in expected if expected[key] != found[key]]
        say(f"{name}: {len(expected)} files compared with an undisturbed run, different: {different}")
        assert not different


if __name__ == "__main__":
    if len(sys.argv) > 1:
        go(Path(sys.argv[1]).absolute())
    else:
        with tempfile.TemporaryDirectory() as temporary:
            go(Path(temporary))
