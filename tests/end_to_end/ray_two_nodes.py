"""A sweep on a real Ray cluster of two nodes, one of which dies in the middle of a run: the run goes on at
the other node from its checkpoint, with the results of one that was never disturbed.

Each node is a raylet with processes of its own, all on this machine; the node that dies is killed (SIGKILL),
raylet and workers at once. A third raylet, which may run nothing, holds the cluster together.

Run: python tests/end_to_end/ray_two_nodes.py [FOLDER]   (needs the extra `ray`; about two minutes)"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import psutil
import ray
from ray.cluster_utils import Cluster

TESTS = Path(__file__).parents[1]
for part in (TESTS, TESTS / "sweep", TESTS.parent):
    sys.path.insert(0, str(part))
os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (TESTS / "sweep", TESTS.parent)))

from engine import left_behind, run, state  # noqa: E402
from launched import Told, sweep  # noqa: E402

from triggerctl.cli.app import main  # noqa: E402
from triggerctl.sweep.launchers.ray import RayLauncher  # noqa: E402

SEEDS = (1, 2)
STEP = 45
"""The run is disturbed once it has done so many updates: more than one epoch, after which there is a
checkpoint."""


def new_experiment(root: Path) -> Path:
    assert main(["--root", str(root), "init", "exp", "--template", "quickstart"]) == 0
    return root / "exp"


def results(folder: Path) -> dict[str, object]:
    (found,) = (folder / "results").iterdir()
    return left_behind(found)


def raylet_of(pid: int) -> psutil.Process | None:
    """The raylet that started a worker; None where either is gone."""
    try:
        parent = psutil.Process(pid).parent()
        return parent if parent is not None and "raylet" in parent.name() else None
    except psutil.NoSuchProcess:
        return None


class Disturber:
    """Kills, once, the node that trains the first seed; notes which raylets trained it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.killed: int | None = None
        self.killed_at = 0
        self.raylets: list[int] = []
        self.began = time.monotonic()

    def __call__(self, told: Told) -> None:
        if not (self._folder / "state.json").is_file():
            return
        seen = state(self._folder)
        raylet = raylet_of(seen["pid"]) if seen["status"] == "running" else None
        if raylet is None:
            return
        if raylet.pid not in self.raylets:
            self.raylets.append(raylet.pid)
            print(f"{self._at()} trained under raylet {raylet.pid}, from update {seen['step']}")
        if self.killed is None and seen["step"] >= STEP:
            self.killed, self.killed_at = raylet.pid, seen["step"]
            for process in (raylet, *raylet.children(recursive=True)):
                process.send_signal(signal.SIGKILL)
            print(f"{self._at()} killed raylet {raylet.pid} and its workers, after update {seen['step']}")

    def _at(self) -> str:
        return f"{time.monotonic() - self.began:6.1f} s "


def go(root: Path) -> None:
    os.environ.setdefault("TRIGGERCTL_CACHE", str(root / "cache"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        os.environ["RAY_ADDRESS"] = cluster.address
        folder = new_experiment(root / "disturbed")
        disturb = Disturber(folder / f"seed_{SEEDS[0]}")
        told = sweep(folder, RayLauncher(), seeds=SEEDS, ticked=disturb)
    finally:
        ray.shutdown()
        cluster.shutdown()
    print(*told.notes, sep="\n")
    print(told.outcomes)
    assert set(told.outcomes.values()) == {"done"}
    assert disturb.killed is not None
    assert len(disturb.raylets) == 2, "the run went on at the other node"
    log = (folder / f"seed_{SEEDS[0]}" / "run.log").read_text(encoding="utf-8")
    print("run.log:", *(line for line in log.splitlines() if "resum" in line.lower()), sep="\n  ")
    for seed in SEEDS:
        alone = new_experiment(root / f"alone_{seed}")
        name = f"seed_{seed}"
        (alone / name).mkdir()
        config = folder / name / "config.json"
        (alone / name / "config.json").write_text(config.read_text(encoding="utf-8"), encoding="utf-8")
        run(alone / name)
        expected, found = results(alone / name), results(folder / name)
        different = [key for key in expected if expected[key] != found.get(key)]
        assert expected.keys() == found.keys()
        print(f"{name}: {len(expected)} files compared with an undisturbed run, different: {different}")
        assert not different


if __name__ == "__main__":
    if len(sys.argv) > 1:
        go(Path(sys.argv[1]).absolute())
    else:
        with tempfile.TemporaryDirectory() as temporary:
            go(Path(temporary))
