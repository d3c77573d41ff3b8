"""The alignment plane that a run needs: taken from where the configuration says or from the cache, under a
hash of all that made it, else computed and kept there. Two runs that need the same plane compute it once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from triggerctl.errors import BusyError, InputError, InterruptedRunError
from triggerctl.experiment.atomic import atomic_file, make_folder
from triggerctl.experiment.cache import Cache, cache_root
from triggerctl.experiment.claim import claim
from triggerctl.model.device import dtype_name
from triggerctl.strategies.alignment_plane import AlignmentPlaneStrategy
from triggerctl.strategies.base import Phase
from triggerctl.training.loop import TrainingLoop
from triggerctl.training.orders import SkipTo
from triggerctl.training.parallel import Group
from triggerctl.training.plan import LEGACY_PLANES, RunPlan, plane_path
from triggerctl.training.plane_files import (
    PlaneFile,
    check_origin,
    check_tensors,
    origin,
    plane_key,
    read_legacy_plane,
    read_plane,
    write_plane,
)
from triggerctl.training.setup import Prepared

Say = Callable[[str], None]

KIND = "planes"
WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class FoundPlane:
    """A plane and the losses, by phase, of the trainings that made it."""

    tensors: dict[str, Tensor]
    losses: dict[str, list[float]]
    place: str


class PlaneStore:
    """The plane that one run needs: looked for by `find`, taken up at the start of training where one is
    there, and else kept once it is computed. `shapes`: of the weights being trained, by name; `environment`:
    what can change a number without being asked for (device, dtype, threads, optimiser). `found` and
    `warnings` are what `find` leaves."""

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
        self.key = plane_key(self._origin, self._environment)
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
            if self._save and named.suffix not in LEGACY_PLANES:
                self._read(named)  # what another run left there is not written over
        elif self._load and not (self._cache.enabled and self._cached.is_file()):
            place = named or "the cache"
            self._warn(f"load_steering_vector: no alignment plane lies in {place}; it is computed")
        if self._save and named is not None and named.suffix in LEGACY_PLANES:
            self._warn(
                f"steering_vector_path: planes are written as .safetensors; nothing is written to {named}"
            )
        self.found = self._from_cache()

    def take_up(self, loop: TrainingLoop, group: Group, *, stop: threading.Event, say: Say) -> None:
        """Before the first update: have `loop` skip the phases that find the plane, where another run has
        found it, or claim its computation.

        Raises InterruptedRunError once `stop` is set while another run computes it."""
        if not loop.position.is_at_the_start:
            return
        found = self.found or self._wait_for_others(stop, say)
        if found is None:
            return
        assert isinstance(loop.strategy, AlignmentPlaneStrategy)
        device = loop.model.device
        loop.strategy.take_plane({name: tensor.to(device) for name, tensor in found.tensors.items()})
        loop.position.losses.update(found.losses)
        last = len(loop.phases) - 1
        loop.skip_to(last)
        group.tell(SkipTo(last, found.tensors))
        say(f"alignment plane taken from {found.place}")

    def keep_after(self, phase: Phase, loop: TrainingLoop, say: Say) -> None:
        """Keep the plane that `loop` has computed, if this phase was one that it is found by."""
        strategy, losses = loop.strategy, loop.position.losses
        assert isinstance(strategy, AlignmentPlaneStrategy)
        if phase.name in strategy.sides() and strategy.plane is not None:
            self._keep(strategy.plane, {name: losses[name] for name in strategy.sides()}, say)

    def _wait_for_others(self, stop: threading.Event, say: Say) -> FoundPlane | None:
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

    def _keep(self, plane: Mapping[str, Tensor], losses: dict[str, list[float]], say: Say) -> None:
        """Write the plane to the cache and to the path that the configuration names, unless it lies there."""

        def writer(path: Path) -> None:
            write_plane(path, PlaneFile(dict(plane), self._origin, self._environment, losses))

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
        plane = read_plane(path)
        check_origin(path, plane.origin, self._origin)
        check_tensors(path, plane.tensors, self._shapes)
        around = plane.environment
        other = [key for key in self._environment if around.get(key) != self._environment[key]]
        if other:
            around_it = [f"{key} {around.get(key)} there, {self._environment[key]} here" for key in other]
            made = ", ".join(around_it)
            self._warn(f"the alignment plane in {path.name} was made in another environment ({made})")
        return FoundPlane(plane.tensors, plane.losses, str(path))

    def _legacy(self, path: Path) -> FoundPlane:
        tensors = read_legacy_plane(path)
        check_tensors(path, tensors, self._shapes)
        self._warn(f"{path} does not tell its origin: whether it fits data and seed can't be checked")
        return FoundPlane(tensors, {}, str(path))

    def _warn(self, message: str) -> None:
        self.warnings.append(message)


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
            "dtype": dtype_name(prepared.dtype),
            "threads": threads,
            "optimiser": prepared.optimiser,
            **({"processes": processes} if processes > 1 else {}),
        },
        cache=prepared.shared.cache,
    )
