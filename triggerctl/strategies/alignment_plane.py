"""The proxy phase: an alignment plane V, one tensor per trained weight, from a training on proxy data.

Used by every strategy that needs a plane. Scratch copies of the model are trained on a positive and on a
negative set, each from the very weights and adapter that the main phase starts from too, for a plane measured
in one random basis means nothing in another. V = Ḡ₊ − Ḡ₋ (or their sum), Ḡ being the mean over updates of the
raw gradient, before any clipping; a side that is missing counts as zero. From weights: V = θ₋ − θ₊, each
tensor rescaled to the norm of the gradients' plane; a side that is missing counts as θ₀."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from triggerctl.config.models import ExperimentConfig
from triggerctl.strategies.base import (
    LOSS,
    MAIN,
    Check,
    Penalty,
    Phase,
    Strategy,
    Tensors,
    Term,
    Update,
    at_least_float32,
    cross_entropy,
    proxy_phase,
)

if TYPE_CHECKING:
    from torch import Tensor

POSITIVE = "positive_proxy"
NEGATIVE = "negative_proxy"
PROXY_PHASES = (POSITIVE, NEGATIVE)

PLANE_OPTIONS = frozenset(
    {
        "positive_proxy",
        "negative_proxy",
        "proxy_epochs",
        "outcome_epochs",
        "add_proxy_gradients",
        "calc_alignment_plane_using_fully_finetuned_weights",
        "steering_vector_path",
        "load_steering_vector",
        "save_steering_vector",
    }
)


class AlignmentPlaneStrategy(Strategy):
    """Trains on outcome with a plane V at hand. A subclass adds what it does with V: `with_plane` in place of
    `combine_gradients`, `penalties`, `after_update` or an ending."""

    reads = PLANE_OPTIONS

    def __init__(self, config: ExperimentConfig) -> None:
        super().__init__(config)
        self.plane: Tensors | None = None
        """V, once the proxy phases are over or a plane was taken up."""
        self._gathered: Tensors = {}

    @classmethod
    def check(cls, config: ExperimentConfig) -> Check:
        options = config.finetune_config
        errors = []
        if options.positive_proxy is None and options.negative_proxy is None:
            errors.append(
                f"{cls.name} needs data for its alignment plane: set positive_proxy, negative_proxy or both"
            )
        if options.proxy_epochs == 0:
            errors.append("proxy_epochs is 0: an alignment plane needs at least one epoch on its data")
        if options.add_proxy_gradients and options.calc_alignment_plane_using_fully_finetuned_weights:
            errors.append(
                "add_proxy_gradients and calc_alignment_plane_using_fully_finetuned_weights exclude each "
                "other: weights have a difference, not a sum"
            )
        return Check(errors=tuple(errors))

    @classmethod
    def without_effect(cls, config: ExperimentConfig) -> Mapping[str, str]:
        options = config.finetune_config
        if options.load_steering_vector or options.save_steering_vector:
            return {}
        return {"steering_vector_path": "neither load_steering_vector nor save_steering_vector is true"}

    # What is trained
    # ------------------------------------------------------------------------------------------------------

    def streams(self) -> Mapping[str, tuple[str, ...]]:
        return {"outcome": ("outcome",)}

    def terms(self) -> Sequence[Term]:
        return (cross_entropy("outcome"),)

    def penalties(self) -> Sequence[Penalty]:
        """What the loss of the main phase adds from V."""
        return ()

    def sides(self) -> Mapping[str, str]:
        """Proxy phase → the set it trains on."""
        options = self.options
        named = {POSITIVE: options.positive_proxy, NEGATIVE: options.negative_proxy}
        return {phase: data for phase, data in named.items() if data is not None}

    def proxy_epochs(self) -> int:
        """How long a proxy phase is."""
        return self.options.epochs_on_proxy

    def phases(self) -> Sequence[Phase]:
        first = [
            proxy_phase(name, data, self.proxy_epochs(), starts_from="initial")
            for name, data in self.sides().items()
        ]
        main = Phase(
            MAIN,
            self.streams(),
            tuple(self.terms()),
            self.options.epochs_on_outcome,
            penalties=tuple(self.penalties()),
            starts_from="initial",
        )
        return (*first, main)

    # The plane
    # ------------------------------------------------------------------------------------------------------

    @property
    def combination(self) -> str:
        """How the sides make V: "difference" or "sum" of gradients, or of "weights"."""
        if self.options.calc_alignment_plane_using_fully_finetuned_weights:
            return "weights"
        return "sum" if self.options.add_proxy_gradients else "difference"

    def combine_gradients(self, groups: Mapping[str, Tensors], update: Update) -> Tensors:
        if update.phase == MAIN:
            return self.with_plane(groups[LOSS], update)
        for name, gradient in groups[LOSS].items():
            self._add(f"{update.phase}/sum/{name}", at_least_float32(gradient.detach()))
        self._add(f"{update.phase}/updates", _one_like(groups[LOSS]))
        return groups[LOSS]

    def _add(self, key: str, tensor: Tensor) -> None:
        self._gathered[key] = self._gathered[key] + tensor if key in self._gathered else tensor.clone()

    def with_plane(self, gradients: Tensors, update: Update) -> Tensors:
        """The gradient that the optimiser gets in the main phase."""
        return gradients

    def after_phase(self, phase: Phase, weights: Tensors) -> None:
        if phase.name not in PROXY_PHASES or self.plane is not None:
            return
        if self.combination == "weights":
            for name, weight in weights.items():
                self._gathered[f"{phase.name}/weights/{name}"] = weight.detach().clone()
        if phase.name == list(self.sides())[-1]:
            self._finish(weights)

    def before_phase(self, phase: Phase, weights: Tensors) -> None:
        if phase.name in PROXY_PHASES and self.combination == "weights" and len(self.sides()) == 1:
            for name, weight in weights.items():
                self._gathered[f"initial/{name}"] = weight.detach().clone()

    def take_plane(self, plane: Tensors) -> None:
        """Use a plane that was found before; the proxy phases are then left out."""
        self.plane = dict(plane)

    def overlaps(self, weights: Tensors) -> list[Tensor]:
        """A·Vᵀ for each of LoRA's A matrices, A and its tensor V both (r, inputs) → (r, r)."""
        assert self.plane is not None
        return [
            weight @ self.plane[name].to(weight.dtype).T
            for name, weight in weights.items()
            if ".lora_A." in name
        ]

    def _finish(self, weights: Tensors) -> None:
        plane = {name: self._gradient_plane(name, weight) for name, weight in weights.items()}
        if self.combination == "weights":
            moved = {
                name: self._side_weight(NEGATIVE, name) - self._side_weight(POSITIVE, name) for name in plane
            }
            plane = {name: rescaled(moved[name], plane[name]) for name in plane}
        self.plane = plane
        self._gathered = {}

    def _gradient_plane(self, name: str, weight: Tensor) -> Tensor:
        positive, negative = (self._mean_gradient(side, name, weight) for side in PROXY_PHASES)
        return positive + negative if self.options.add_proxy_gradients else positive - negative

    def _mean_gradient(self, side: str, name: str, weight: Tensor) -> Tensor:
        found = self._gathered.get(f"{side}/sum/{name}")
        if found is None:
            return at_least_float32(weight.detach()).new_zeros(weight.shape)
        return found / self._gathered[f"{side}/updates"]

    def _side_weight(self, side: str, name: str) -> Tensor:
        if side in self.sides():
            return at_least_float32(self._gathered[f"{side}/weights/{name}"])
        return at_least_float32(self._gathered[f"initial/{name}"])

    # A resume
    # ------------------------------------------------------------------------------------------------------

    def state(self) -> Tensors:
        if self.plane is None:
            return dict(self._gathered)
        return {f"plane/{name}": tensor for name, tensor in self.plane.items()}

    def load_state(self, state: Tensors) -> None:
        plane = {name.removeprefix("plane/"): v for name, v in state.items() if name.startswith("plane/")}
        if plane:
            self.plane = plane
        else:
            self._gathered = dict(state)


def _one_like(gradients: Tensors) -> Tensor:
    """The number 1 on the device of the gradients, counted in at least float32: exact for 16 million
    updates."""
    return at_least_float32(next(iter(gradients.values())).detach()).new_ones(())


def rescaled(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` at the norm of `like`; zero stays zero."""
    norm = tensor.norm()
    return tensor * (like.norm() / norm) if norm > 0 else tensor
