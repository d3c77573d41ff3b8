"""Alignment planes as files: tensors by name, and with them their origin, which is all that made them what
they are. A plane of another origin or shape is refused with the difference named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from triggerctl import disk
from triggerctl.errors import InputError, first_line
from triggerctl.experiment.fingerprint import STRATEGY_KEYS, hashed_values
from triggerctl.strategies.alignment_plane import AlignmentPlaneStrategy
from triggerctl.training.plan import LEGACY_PLANES, RunPlan, plane_path

_NOT_OF_THE_PLANE = STRATEGY_KEYS | {"epochs", "max_to_eval"}
_FORMAT = 1
_METADATA = "triggerctl_plane"


@dataclass(frozen=True, slots=True)
class PlaneFile:
    """What a file holds. `environment`: what could change a number without being asked for, where the plane
    was made; `losses`: of the trainings that made it, by phase."""

    tensors: dict[str, Tensor]
    origin: Mapping[str, Any]
    environment: Mapping[str, Any]
    losses: dict[str, list[float]]


def origin(plan: RunPlan, strategy: AlignmentPlaneStrategy) -> dict[str, Any]:
    """All that makes a plane what it is, by the names a user knows."""
    config = plan.config
    phases = {
        phase.name: f"{next(iter(phase.streams))}, {phase.epochs} epochs" for phase in strategy.phases()[:-1]
    }
    values = {
        key.removeprefix("finetune_config."): value
        for key, value in hashed_values(config).items()
        if key.removeprefix("finetune_config.") not in _NOT_OF_THE_PLANE
        and key not in ("proxy_strategy", "extra_evaluation")
    }
    return {
        "model": plan.model.fingerprint,
        "data": plan.source.sha256,
        "positive_proxy": phases.get("positive_proxy", "none"),
        "negative_proxy": phases.get("negative_proxy", "none"),
        "combination": strategy.combination,
        **values,
    }


def plane_key(origin: Mapping[str, Any], environment: Mapping[str, object]) -> str:
    """The name in the cache of the plane that this origin gives in this environment."""
    return hashlib.sha256(_plain([origin, environment]).encode()).hexdigest()[:32]


def check_plane(plan: RunPlan) -> None:
    """Whether a plane that the configuration points to was made for this run, as far as its origin tells.

    Raises InputError naming the difference."""
    strategy, path = plan.strategy(plan.config), plane_path(plan.config, plan.loaded)
    options = plan.config.finetune_config
    used = options.load_steering_vector or options.save_steering_vector
    if not isinstance(strategy, AlignmentPlaneStrategy) or path is None or not path.is_file():
        return
    if used and path.suffix not in LEGACY_PLANES:
        check_origin(path, read_plane(path).origin, origin(plan, strategy))


def check_origin(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raises InputError where the plane in `path`, of origin `theirs`, is not the one of `ours`."""
    differing = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
    if differing:
        said = [f"{key}: {theirs.get(key)} there, {ours.get(key)} here" for key in differing]
        raise _foreign(path, said)


def check_tensors(path: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Raises InputError where the plane's names or shapes are not those of the weights being trained."""
    missing = [name for name in shapes if name not in tensors]
    unknown = [name for name in tensors if name not in shapes]
    faults = [f"it lacks {missing[0]} and {len(missing) - 1} more"] if missing else []
    if unknown:
        faults.append(f"it has {unknown[0]} and {len(unknown) - 1} more that are not trained here")
    faults += [
        f"{name}: shape {tuple(tensors[name].shape)} there, {tuple(shape)} here"
        for name, shape in shapes.items()
        if name in tensors and tensors[name].shape != shape
    ][:3]
    if faults:
        raise _foreign(path, faults)


def write_plane(path: Path, plane: PlaneFile) -> None:
    """Write the plane and all that is known of it."""
    about = {
        "format": _FORMAT,
        "origin": plane.origin,
        "environment": plane.environment,
        "losses": plane.losses,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in plane.tensors.items()}
    save_file(tensors, disk.before_opening("write", path), metadata={_METADATA: _plain(about)})


def read_plane(path: Path) -> PlaneFile:
    """Raises InputError for a file that is no plane, or does not tell its origin."""
    try:
        with safe_open(disk.before_opening("read", path), framework="pt") as file:
            metadata = file.metadata() or {}
            about = json.loads(metadata.get(_METADATA, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(about, dict) or not isinstance(about.get("origin"), dict):
        raise _unreadable(path, "it does not say what it was made from")
    return PlaneFile(tensors, about["origin"], about.get("environment", {}), about.get("losses", {}))


def read_legacy_plane(path: Path) -> dict[str, Tensor]:
    """The tensors of a plane of the study's, by name: a pickle, of which nothing but weights is read.

    Raises InputError where it holds anything else."""
    try:
        content = torch.load(disk.before_opening("read", path), map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unreadable(path, first_line(error)) from error
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise _unreadable(path, "it does not hold tensors by name")
    return {str(name).removeprefix("base_model.model."): tensor for name, tensor in content.items()}


def _foreign(path: Path, differences: list[str]) -> InputError:
    return InputError(
        "this alignment plane was made for another run",
        where=str(path),
        why="; ".join(differences),
        mend="change steering_vector_path, or remove the file to have the plane computed",
    )


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(
        "this file is no alignment plane that can be read",
        where=str(path),
        why=why,
        mend="change steering_vector_path, or remove the file to have the plane computed",
    )


def _plain(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
