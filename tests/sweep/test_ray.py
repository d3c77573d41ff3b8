"""A sweep on a Ray cluster, on real small runs; needs the extra `ray`. Run: pytest tests/sweep/test_ray.py"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from engine import left_behind, run, state
from launched import SETTINGS, Told, make_reachable, sweep

from triggerctl.errors import InputError, InterruptedRunError
from triggerctl.sweep.launchers.ray import RayLauncher, share_out
from triggerctl.sweep.launchers.ray_cluster import Node

MakeExperiment = Callable[..., Path]
GIB = 2**30
PLAIN = replace(SETTINGS, device="auto", threads=None)


@pytest.fixture
def no_cluster_around(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    make_reachable(monkeypatch)


def results(folder: Path) -> Path:
    (found,) = (folder / "results").iterdir()
    return found


def test_without_gpus_the_cores_of_the_cluster_are_shared_by_the_cells_of_the_grid() -> None:
    nodes = [Node("a", 8, 0, GIB), Node("b", 4, 0, GIB)]
    shares = {cells: share_out(None, nodes, PLAIN, cells=cells) for cells in (1, 2, 4, 40)}
    assert {cells: share.cpus for cells, share in shares.items()} == {1: 4, 2: 4, 4: 3, 40: 1}
    assert {(share.gpus, share.settings.device) for share in shares.values()} == {(0, "cpu")}
    assert all(share.settings.threads == share.cpus for share in shares.values())
    assert share_out(2, nodes, PLAIN, cells=40).cpus == 4
    assert share_out(None, nodes, replace(PLAIN, threads=6), cells=40).cpus == 6
    assert share_out(None, nodes, replace(PLAIN, threads=3, gpus_per_run=2), cells=9).cpus == 6


def test_with_gpus_each_run_has_its_own_and_the_cores_that_go_with_it() -> None:
    nodes = [Node("a", 64, 8, GIB), Node("b", 16, 4, GIB), Node("c", 2, 0, GIB)]
    share = share_out(None, nodes, PLAIN, cells=40)
    assert (share.cpus, share.gpus, share.settings.device) == (4, 1, "cuda")
    share = share_out(None, nodes, replace(PLAIN, gpus_per_run=2), cells=40)
    assert (share.cpus, share.gpus, share.settings.threads) == (8, 2, 4)
    assert share_out(None, nodes, replace(PLAIN, device="cpu"), cells=40).gpus == 0
    with pytest.raises(InputError, match="cuda:1"):
        share_out(None, nodes, replace(PLAIN, device="cuda:1"), cells=40)


@pytest.mark.parametrize(("cores", "warnings"), [(1, 1), (8, 0)])
def test_a_check_that_no_node_has_room_for_says_so(
    cores: int, warnings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = {"Alive": True, "Resources": {"CPU": cores}, "NodeManagerAddress": "a", "NodeManagerPort": 1}
    said: list[str] = []
    stop = threading.Event()
    stop.set()
    launcher = RayLauncher(warn=said.append)
    launcher._ray = SimpleNamespace(
        nodes=lambda: [has], wait=lambda tasks, timeout: ([], tasks), cancel=lambda task: None
    )
    monkeypatch.setattr(launcher, "_begin", lambda *order, name: "task")
    with pytest.raises(InterruptedRunError):
        launcher.check([], replace(PLAIN, threads=4), stop=stop)
    assert len(said) == warnings
    assert all("no node has that" in text for text in said)


@pytest.mark.slow
def test_a_sweep_is_trained_then_finished_already_and_equal_to_one_without_ray(
    make_experiment: MakeExperiment, no_cluster_around: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The experiment is named by a relative path, as on the command line."""
    folder = make_experiment("exp", finetune={"epochs": 1, "max_to_eval": 4})
    monkeypatch.chdir(folder.parents[1])
    told = sweep(Path("experiments/exp"), RayLauncher(), seeds=[1, 2])
    assert told.outcomes == {"seed_1": "done", "seed_2": "done"}
    assert "1 CPU for each run" in told.notes[0]
    again = sweep(Path("experiments/exp"), RayLauncher(), seeds=[1, 2])
    assert again.outcomes == {"seed_1": "skipped", "seed_2": "skipped"}
    assert again.notes == []

    alone = make_experiment("alone", finetune={"epochs": 1, "max_to_eval": 4}, seed=2)
    expected, found = left_behind(run(alone)), left_behind(results(folder / "seed_2"))
    assert found["metrics.jsonl"] == expected["metrics.jsonl"]
    assert found["adapter/adapter_model.safetensors"] == expected["adapter/adapter_model.safetensors"]


@pytest.mark.slow
def test_stop_leaves_checkpoints_and_begins_nothing_more(
    make_experiment: MakeExperiment, no_cluster_around: None
) -> None:
    folder = make_experiment("exp", finetune={"epochs": 400, "max_to_eval": 2})
    stop = threading.Event()

    def stop_once_it_trains(told: Told) -> None:
        path = folder / "seed_1" / "state.json"
        if path.is_file() and json.loads(path.read_text(encoding="utf-8"))["step"] > 0:
            stop.set()

    told = sweep(folder, RayLauncher(1), seeds=[1, 2], stop=stop, ticked=stop_once_it_trains)
    assert told.outcomes == {"seed_1": "interrupted"}
    assert state(folder / "seed_1")["status"] == "interrupted"
    assert not (folder / "seed_2" / "state.json").exists()
    assert not (folder / "seed_1" / ".lock").exists()


@pytest.mark.slow
def test_a_run_that_fails_does_not_take_the_others_with_it(
    make_experiment: MakeExperiment, no_cluster_around: None
) -> None:
    """A results path that is a file makes the first run fail once it starts."""
    folder = make_experiment("exp", finetune={"epochs": 1, "max_to_eval": 4})
    (folder / "seed_1").mkdir()
    (folder / "seed_1" / "results").write_text("in the way", encoding="utf-8")
    told = sweep(folder, RayLauncher(), seeds=[1, 2])
    assert told.outcomes == {"seed_1": "failed", "seed_2": "done"}
    error = told.ended_with["seed_1"].error
    assert error is not None
    assert "results" in str(error)


def test_a_cluster_that_does_not_answer_is_named(
    make_experiment: MakeExperiment, no_cluster_around: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_experiment("exp")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=r"no Ray cluster answers; RAY_ADDRESS=127\.0\.0\.1:1"):
        sweep(folder, RayLauncher(), seeds=[1])
    assert not (folder / "sweeps").exists()
