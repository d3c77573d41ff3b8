"""Checkpoints from which a run goes on bit for bit: weights, optimiser, schedule, random states, position,
what the strategy has gathered, and how long the run's growing files were. A checkpoint is a folder that
appears whole or not at all."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from triggerctl import disk
from triggerctl.errors import InputError, RunError
from triggerctl.experiment.atomic import (
    atomic_folder,
    clear_unfinished_writes,
    drop_folder,
    make_folder,
    write_json_atomic,
)
from triggerctl.model.device import dtype_name
from triggerctl.training.loop import TrainingLoop
from triggerctl.training.position import Position

CHECKPOINT_SECONDS = 120.0
"""Between checkpoints in the middle of an epoch; a fast epoch needs none."""

_PREFIX = "step-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint on disk. `record` holds the position and whatever the caller stored with it."""

    folder: Path
    record: Mapping[str, Any]


class CheckpointFolder:
    """Where one run's checkpoints are written; all but the newest `keep` are dropped."""

    def __init__(self, path: Path, *, keep: int) -> None:
        self._path = path
        self._keep = keep
        self._written = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the last one was long enough ago for another in the middle of an epoch."""
        return time.monotonic() - self._written > CHECKPOINT_SECONDS

    def write(self, loop: TrainingLoop, record: Callable[[], Mapping[str, Any]]) -> Path:
        """A checkpoint of where `loop` stands, with what the caller wants to find in its record."""
        make_folder(self._path)
        path = _write(self._path, loop, record(), keep=self._keep)
        self._written = time.monotonic()
        return path


def _write(folder: Path, loop: TrainingLoop, record: Mapping[str, Any], *, keep: int) -> Path:
    position = loop.position
    final = folder / f"{_PREFIX}{position.phase:02d}-{position.step:08d}-{int(position.evaluated)}"
    if final.is_dir():
        return final
    with atomic_folder(final) as building:
        _save(loop.model.own_weights, building / "weights.safetensors")
        _save(loop.strategy.state(), building / "strategy.safetensors")
        # Into an open file: of one that torch opens itself, a full disk is no error of the system's.
        with disk.open_to_write(building / "state.pt") as file:
            torch.save(
                {
                    "optimiser": loop.optimiser.state_dict(),
                    "schedule": loop.schedule.state_dict(),
                    "random": _random_states(loop.model.device),
                },
                file,
            )
        write_json_atomic(building / "record.json", {**record, "position": position.document()})
    for old in _complete(folder)[:-keep]:
        drop_folder(old)
    return final


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run; leavings of a write that was cut off are removed."""
    if not folder.is_dir():
        return None
    clear_unfinished_writes(folder)
    complete = _complete(folder)
    if not complete:
        return None
    record = json.loads(disk.read_bytes(complete[-1] / "record.json"))
    return Checkpoint(complete[-1], record)


def position_of(checkpoint: Checkpoint) -> Position:
    """Where the run stood."""
    return Position(**checkpoint.record["position"])


def check_fits(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, optimiser: str) -> None:
    """Raise InputError where the run would go on otherwise than it began: in another format, with an
    optimiser that can't read the other's state, on another kind of device."""
    here = {
        "device": device.type,
        "dtype": dtype_name(dtype),
        "optimiser": optimiser,
    }
    there = {key: checkpoint.record.get(key, value) for key, value in here.items()}
    if there == here:
        return
    raise InputError(
        "this run was begun on " + _in_words(there),
        where=str(checkpoint.folder),
        why=f"here it would go on on {_in_words(here)}, as another run",
        mend="the same command where it began goes on; --fresh trains it anew",
    )


def _in_words(conditions: Mapping[str, Any]) -> str:
    return "{device} in {dtype} with {optimiser}".format(**conditions)


def restore(checkpoint: Checkpoint, loop: TrainingLoop) -> None:
    """Put weights, optimiser, schedule and random states back.

    Raises RunError where the checkpoint's weights are not this model's."""
    weights = load_file(disk.before_opening("read", checkpoint.folder / "weights.safetensors"))
    own = loop.model.own_weights
    if weights.keys() != own.keys():
        raise RunError(
            "the checkpoint does not fit the model",
            where=str(checkpoint.folder),
            why="its tensors have other names than those being trained",
            mend="remove the checkpoint folder, or use --fresh",
        )
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)
    gathered = load_file(disk.before_opening("read", checkpoint.folder / "strategy.safetensors"))
    loop.strategy.load_state({name: tensor.to(loop.model.device) for name, tensor in gathered.items()})
    with disk.open_to_read(checkpoint.folder / "state.pt") as file:
        state = torch.load(file, map_location="cpu", weights_only=True)
    loop.optimiser.load_state_dict(state["optimiser"])
    loop.schedule.load_state_dict(state["schedule"])
    _restore_random_states(state["random"], loop.model.device)


def _complete(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if (path / "record.json").is_file())


def _save(weights: Mapping[str, Tensor], path: Path) -> None:
    save_file(_plain(weights), disk.before_opening("write", path))


def _plain(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}


def _random_states(device: torch.device) -> dict[str, Any]:
    """Of this process's generators, and of the one GPU that it trains on."""
    numbers: Any = numpy.random.get_state(legacy=False)
    version, inner, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
        "python": [version, list(inner), gauss],
        "numpy": {**numbers, "state": {**numbers["state"], "key": numbers["state"]["key"].tolist()}},
    }


def _restore_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["torch"])
    for of_the_gpu in states["cuda"]:
        torch.cuda.set_rng_state(of_the_gpu, device)
    version, inner, gauss = states["python"]
    random.setstate((version, tuple(inner), gauss))
    numpy.random.set_state(states["numpy"])
