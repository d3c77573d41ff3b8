"""Sweeps that are killed, that many processes share, or that fill the disk: short forms of chaos.py,
many_sweeps.py and full_disk.py. Run: pytest tests/end_to_end/test_disturbed_sweeps.py"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from chaos import Kill, chaos
from full_disk import MountError, fill_up
from many_sweeps import at_once
from small_sweep import Place

TINY: dict[str, Any] = {"epochs": 2, "max_to_eval": 2, "per_device_train_batch_size": 16}
NAIVE: dict[str, Any] = {"naive": [{}]}


@pytest.mark.slow
def test_a_sweep_that_is_killed_leaves_what_an_undisturbed_one_leaves(tmp_path: Path) -> None:
    kills = [Kill("worker", 3, 0.2, 0), Kill("parent", 1, 0.2, 0)]
    strategies = {"naive": [{}], "steering_weights": [{"positive_proxy": "proxy"}]}
    finetune = {**TINY, "proxy_epochs": 1}
    said: list[str] = []
    assert not chaos(tmp_path, kills, said.append, strategies=strategies, seeds=(1,), finetune=finetune)
    assert any("killed" in line for line in said)


@pytest.mark.slow
def test_two_sweeps_at_once_train_each_run_once(tmp_path: Path) -> None:
    place = Place(tmp_path, (1, 2)).write(NAIVE, **TINY)
    assert not at_once(place, 2, cells=2, hosts=("first-host", "other-host"))


@pytest.mark.slow
def test_a_sweep_that_fills_the_disk_says_so_and_ends_once_there_is_room(tmp_path: Path) -> None:
    said: list[str] = []
    try:
        found = fill_up(tmp_path, 8, said.append, strategies=NAIVE, seeds=(1, 2), finetune=TINY)
    except (MountError, subprocess.SubprocessError) as error:
        pytest.skip(f"mounting is not permitted here: {error}")
    assert not found
