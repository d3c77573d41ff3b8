"""Where alignment planes are kept: in the cache under a hash of all that made them, and where a configuration
says. A plane of another origin is refused with the difference named; two runs that need the same plane
compute it once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from triggerctl import disk
from triggerctl.errors import BusyError, InputError, InterruptedRunError
from triggerctl.experiment.atomic import atomic_file, make_folder
from triggerctl.experiment.cache import Cache, cache_root
from triggerctl.experiment.claim import claim
from triggerctl.experiment.fingerprint import STRATEGY_KEYS, hashed_values
from triggerctl.strategies.alignment_plane import AlignmentPlaneStrategy
from triggerctl.training.plan import LEGACY_PLANES, RunPlan, plane_path
from triggerctl.training.setup import Prepared

Say = Callable[[str], None]

KIND = "planes"
WAIT_SECONDS = 0.5
_NOT_OF_THE_PLANE = STRATEGY_KEYS | {"epochs", "max_to_eval"}
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class FoundPlane:
    """A plane and the losses, by phase, of the trainings that made it."""

    tensors: dict[str, Tensor]
    losses: dict[str, list[float]]
    place: str


class PlaneStore:
    """The plane that one run needs, looked for by `find` and else computed. `shapes`: of the weights being
    trained, by name; `environment`: what can change a number without being asked for (device, dtype, threads,
    optimiser). `found` and `warnings` are what `find` leaves."""

    def __init__(
        self,
        plan: RunPlan,
        strategy: AlignmentPlaneStrategy,
        *,
        shapes: Mapping[str, torch.Size],
        environment: Mapping[str, object],
        cache: Cache,
    ) -> None:
        options = plan.config.finetune_config
        self.found: FoundPlane | None = None
        self.warnings: list[str] = []
        self._shapes = shapes
        self._origin = origin(plan, strategy)
        self._environment = {"torch": torch.__version__, **environment}
        self.key = hashlib.sha256(_plain([self._origin, self._environment]).encode()).hexdigest()[:32]
        self._cache = cache
        self._cached = cache_root() / self.cache_entry
        self._named = plane_path(plan.config, plan.loaded)
        self._may_write = plan.plane_may_be_written
        self._load = options.load_steering_vector
        self._save = options.save_steering_vector
        self._held = contextlib.ExitStack()
        self._is_held = False

    def find(self) -> None:
        """Look where the configuration says, then in the cache; `found` stays None where the plane must be
        computed.

        Raises InputError for a file whose origin, tensor names or shapes are not this run's."""
        named = self._named
        if named is not None and named.is_file():
            if self._load:
                self.found = self._legacy(named) if named.suffix in LEGACY_PLANES else self._read(named)
                return
            if self._save:
                self._read(named)  # what another run left there is not written over
        elif self._load and not (self._cache.enabled and self._cached.is_file()):
            place = named or "the cache"
            self._warn(f"load_steering_vector: no alignment plane lies in {place}; it is computed")
        self.found = self._from_cache()

    def wait_for_others(self, stop: threading.Event, say: Say) -> FoundPlane | None:
        """Claim the plane's computation; while another process is at it, wait for what it finds.

        Raises InterruptedRunError once `stop` is set."""
        if not self._save or not self._cache.enabled:
            return None
        told = False
        while not self._claim():
            if not told:
                say(f"another run computes the alignment plane {self.key}: waiting for it")
            told = True
            if stop.wait(WAIT_SECONDS):
                raise InterruptedRunError(
                    "stopped while another run computed the alignment plane",
                    mend="the same command goes on from there",
                )
        found = self._from_cache()
        if found is not None:
            self.release()
        return found

    def keep(self, plane: Mapping[str, Tensor], losses: Mapping[str, list[float]], say: Say) -> None:
        """Write the plane to the cache and to the path that the configuration names, unless it lies there."""

        def writer(path: Path) -> None:
            _write(path, plane, self._origin, self._environment, losses)

        say(f"alignment plane {self.key} computed")
        if self._save:
            if self._cache.enabled:
                # A run that was resumed in the midst of it has no claim, and its dead self's goes with ours.
                self._claim()
            if not self._cached.is_file():
                self._cache.keep(self.cache_entry, writer)
            named = self._named
            is_new = named is not None and not named.is_file() and named.suffix not in LEGACY_PLANES
            if named is not None and is_new and self._may_write:
                make_folder(named.parent)
                with atomic_file(named) as temporary:
                    writer(temporary)
                say(f"alignment plane written to {named}")
        self.release()

    def release(self) -> None:
        """Let others compute the plane."""
        self._held.close()
        self._is_held = False

    def _claim(self) -> bool:
        """Whether the computation is ours. Where the cache can't be written there is nothing to share: each
        run computes its own."""
        if not self._is_held:
            try:
                make_folder(self._cached.parent)
                self._held.enter_context(claim(self._cached.parent, name=f".{self.key}.lock"))
            except BusyError:
                return False
            except InputError:
                return True
            self._is_held = True
        return True

    @property
    def cache_entry(self) -> str:
        return f"{KIND}/{self.key}.safetensors"

    def _from_cache(self) -> FoundPlane | None:
        return self._cache.read(self.cache_entry, self._read)

    def _read(self, path: Path) -> FoundPlane:
        tensors, about = _open(path)
        _check_origin(path, about["origin"], self._origin)
        self._check_tensors(path, tensors)
        around = about.get("environment", {})
        other = [key for key in self._environment if around.get(key) != self._environment[key]]
        if other:
            around_it = [f"{key} {around.get(key)} there, {self._environment[key]} here" for key in other]
            made = ", ".join(around_it)
            self._warn(f"the alignment plane in {path.name} was made in another environment ({made})")
        return FoundPlane(tensors, about.get("losses", {}), str(path))

    def _warn(self, message: str) -> None:
        self.warnings.append(message)

    def _legacy(self, path: Path) -> FoundPlane:
        """A plane of the study's: tensors by name in a pickle, of which nothing but weights is read."""
        try:
            content = torch.load(disk.before_opening("read", path), map_location="cpu", weights_only=True)
        except Exception as error:
            raise _unreadable(path, str(error).splitlines()[0]) from error
        if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
            raise _unreadable(path, "it does not hold tensors by name")
        tensors = {str(name).removeprefix("base_model.model."): tensor for name, tensor in content.items()}
        self._check_tensors(path, tensors)
        self._warn(f"{path} does not tell its origin: whether it fits data and seed can't be checked")
        return FoundPlane(tensors, {}, str(path))

    def _check_tensors(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        missing = [name for name in self._shapes if name not in tensors]
        unknown = [name for name in tensors if name not in self._shapes]
        faults = [f"it lacks {missing[0]} and {len(missing) - 1} more"] if missing else []
        if unknown:
            faults.append(f"it has {unknown[0]} and {len(unknown) - 1} more that are not trained here")
        faults += [
            f"{name}: shape {tuple(tensors[name].shape)} there, {tuple(shape)} here"
            for name, shape in self._shapes.items()
            if name in tensors and tensors[name].shape != shape
        ][:3]
        if faults:
            raise _foreign(path, faults)


def plane_store(plan: RunPlan, prepared: Prepared, *, threads: int, processes: int) -> PlaneStore | None:
    """The store of the plane that a run needs, None where its strategy needs none."""
    if not isinstance(prepared.strategy, AlignmentPlaneStrategy):
        return None
    return PlaneStore(
        plan,
        prepared.strategy,
        shapes={name: weight.shape for name, weight in prepared.model.trainable.items()},
        environment={
            "device": prepared.device.type,
            "dtype": str(prepared.dtype).removeprefix("torch."),
            "threads": threads,
            "optimiser": prepared.optimiser,
            **({"processes": processes} if processes > 1 else {}),
        },
        cache=prepared.shared.cache,
    )


def check_plane(plan: RunPlan) -> None:
    """Whether a plane that the configuration points to was made for this run, as far as its origin tells.

    Raises InputError naming the difference."""
    strategy, path = plan.strategy(plan.config), plane_path(plan.config, plan.loaded)
    options = plan.config.finetune_config
    used = options.load_steering_vector or options.save_steering_vector
    if not isinstance(strategy, AlignmentPlaneStrategy) or path is None or not path.is_file():
        return
    if used and path.suffix not in LEGACY_PLANES:
        _check_origin(path, _open(path)[1]["origin"], origin(plan, strategy))


def _check_origin(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    differing = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
    if differing:
        said = [f"{key}: {theirs.get(key)} there, {ours.get(key)} here" for key in differing]
        raise _foreign(path, said)


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


def _write(
    path: Path,
    plane: Mapping[str, Tensor],
    origin: Mapping[str, Any],
    environment: Mapping[str, object],
    losses: Mapping[str, list[float]],
) -> None:
    about = {"format": _FORMAT, "origin": origin, "environment": environment, "losses": losses}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in plane.items()}
    save_file(tensors, disk.before_opening("write", path), metadata={"triggerctl_plane": _plain(about)})


def _open(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(disk.before_opening("read", path), framework="pt") as file:
            metadata = file.metadata() or {}
            about = json.loads(metadata.get("triggerctl_plane", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(about, dict) or not isinstance(about.get("origin"), dict):
        raise _unreadable(path, "it does not say what it was made from")
    return tensors, about


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
