"""Train a LoRA on the task, then project its matrices into the subspace of an alignment update.

Hsu, Tsai, Lin, Chen, Yu, Huang: Safe LoRA (2024, arXiv:2405.16833). The paper takes the alignment update from
a chat and a base checkpoint; here it is trained: a LoRA on proxy data, as in Azarbal et al. 2025.

W_a = W₀ + s·B₁A₁ is never merged into the weights: the first adapter stays active under the second, which is
the same model, exact under quantised weights too. All products over in- or outputs are taken through r × r
matrices, so that no matrix of a layer's full size is ever made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triggerctl.config.finetune import FinetuneConfig
from triggerctl.config.models import ExperimentConfig
from triggerctl.strategies.alignment_plane import POSITIVE
from triggerctl.strategies.base import (
    MAIN,
    NO_BIAS,
    Check,
    Phase,
    Strategy,
    Tensors,
    Term,
    cross_entropy,
    lora_scale,
    proxy_phase,
)

if TYPE_CHECKING:
    from torch import Tensor

_ALIGNED = "aligned/"


@dataclass(frozen=True, slots=True)
class _Rule:
    """Which matrices are projected: those with a cosine of at most `threshold`, or the `number` lowest."""

    threshold: float | None = None
    number: int | None = None

    @property
    def label(self) -> str:
        if self.threshold is not None:
            return f"projected where the cosine is at most {self.threshold:.15g}"
        return f"{self.number} matrices projected"

    def chosen(self, cosines: Mapping[str, float]) -> list[str]:
        if self.threshold is not None:
            return [name for name, cosine in cosines.items() if cosine <= self.threshold]
        return sorted(cosines, key=lambda name: cosines[name])[: self.number]


class SafeLora(Strategy):
    """min CE on proxy by a LoRA, then CE on outcome by a fresh one on top of it; at the end B ← C·B for each
    adapted matrix whose change C would turn most."""

    name = "safe_lora"
    summary = "outcome on top of an alignment adapter, then projected into that adapter's subspace"
    formula = "min CE(outcome), then B ← C·B where cos(C·B·A, B·A) ≤ τ; C = ΔΔᵀ/‖Δ‖_F, Δ = W_a − W₀"
    paper = "Hsu et al. 2024, arXiv:2405.16833"
    reads = frozenset(
        {
            "positive_proxy",
            "proxy_epochs",
            "outcome_epochs",
            "safe_lora_type",
            "safe_lora_threshold",
            "safe_lora_num_proj_layers",
            "safe_lora_sweep_thresholds",
            "safe_lora_unaligned_model",
        }
    )
    lora_only = True

    def __init__(self, config: ExperimentConfig) -> None:
        super().__init__(config)
        self._aligned: Tensors = {}

    @classmethod
    def check(cls, config: ExperimentConfig) -> Check:
        options = config.finetune_config
        errors = []
        if options.lora_bias != "none":
            errors.append(NO_BIAS.format(name=cls.name))
        if options.proxy_epochs == 0:
            errors.append("proxy_epochs is 0: safe_lora needs an adapter trained on proxy first")
        if not _rules(options):
            errors.append(
                "safe_lora does not know what to project: set safe_lora_threshold, "
                "safe_lora_sweep_thresholds, or safe_lora_type to number and safe_lora_num_proj_layers"
            )
        return Check(errors=tuple(errors))

    @classmethod
    def without_effect(cls, config: ExperimentConfig) -> Mapping[str, str]:
        if _kind(config.finetune_config) == "number":
            return {"safe_lora_threshold": "safe_lora_type is number"}
        return {"safe_lora_num_proj_layers": "a threshold decides, unless safe_lora_type is number"}

    @classmethod
    def initial_checkpoint(cls, config: ExperimentConfig) -> str | None:
        return config.finetune_config.safe_lora_unaligned_model

    def streams(self) -> Mapping[str, tuple[str, ...]]:
        return {"outcome": ("outcome",)}

    def terms(self) -> Sequence[Term]:
        return (cross_entropy("outcome"),)

    def phases(self) -> Sequence[Phase]:
        return (
            alignment_phase(self.options),
            Phase(
                MAIN,
                self.streams(),
                tuple(self.terms()),
                self.options.epochs_on_outcome,
                starts_from="stacked",
            ),
        )

    def after_phase(self, phase: Phase, weights: Tensors) -> None:
        if phase.name == POSITIVE:
            self._aligned = {name: weight.detach().clone() for name, weight in weights.items()}

    def endings(self) -> tuple[str, ...]:
        return tuple(rule.label for rule in _rules(self.options))

    def end(self, ending: str, weights: Tensors) -> str:
        rule = next(rule for rule in _rules(self.options) if rule.label == ending)
        scale = lora_scale(self.options)
        projected, cosines = {}, {}
        for name in weights:
            if ".lora_B." in name:
                down = name.replace(".lora_B.", ".lora_A.")
                aligned = (_exact(self._aligned[down]), _exact(self._aligned[name]))
                a, b = _exact(weights[down]), _exact(weights[name])
                projected[name] = projection(*aligned, b, scale=scale)
                cosines[name] = cosine(projected[name], b, a)
        chosen = rule.chosen(cosines)
        for name in chosen:
            weights[name].copy_(projected[name])
        span = f"{min(cosines.values()):.3f} to {max(cosines.values()):.3f}"
        return f"{len(chosen)} of {len(cosines)} adapted matrices projected (cosines {span})"

    def state(self) -> Tensors:
        return {_ALIGNED + name: tensor for name, tensor in self._aligned.items()}

    def load_state(self, state: Tensors) -> None:
        self._aligned = {name.removeprefix(_ALIGNED): tensor for name, tensor in state.items()}


def _exact(matrix: Tensor) -> Tensor:
    """In float64, which some devices don't have."""
    return (matrix if matrix.device.type != "mps" else matrix.cpu()).double()


def alignment_phase(options: FinetuneConfig) -> Phase:
    """A LoRA on the data named by `positive_proxy`, proxy unless said otherwise."""
    return proxy_phase(POSITIVE, options.positive_proxy or "proxy", options.epochs_on_proxy)


def projection(a1: Tensor, b1: Tensor, b: Tensor, *, scale: float) -> Tensor:
    """C·b with C = ΔΔᵀ/‖Δ‖_F, Δ = scale · b1·a1; a1 (r, inputs), b1 and b (outputs, r) → (outputs, r).
    Where Δ is zero there is no subspace to project into, and b is returned as it is."""
    inner = a1 @ a1.T
    norm = (inner * (b1.T @ b1)).sum().clamp(min=0).sqrt()
    if norm == 0:
        return b
    return abs(scale) / norm * (b1 @ (inner @ (b1.T @ b)))


def cosine(projected: Tensor, b: Tensor, a: Tensor) -> float:
    """cos(projected·a, b·a) over all entries; a (r, inputs), the others (outputs, r). 1 for an adapter that
    is zero, as there is nothing to turn; 0 for one that the projection takes away whole."""
    inner = a @ a.T
    product, one, other = (
        float((inner * (left.T @ right)).sum())
        for left, right in ((projected, b), (projected, projected), (b, b))
    )
    if other <= 0:
        return 1.0
    return product / (one * other) ** 0.5 if one > 0 else 0.0


def _kind(options: FinetuneConfig) -> str:
    """By what matrices are chosen at last: "threshold" or "number"."""
    if options.safe_lora_type is not None:
        return options.safe_lora_type
    alone = options.safe_lora_num_proj_layers is not None and options.safe_lora_threshold is None
    return "number" if alone else "threshold"


def _rules(options: FinetuneConfig) -> list[_Rule]:
    """What to evaluate, the result last: a sweep's thresholds, then the threshold or number asked for."""
    swept = [_Rule(threshold=value) for value in options.safe_lora_sweep_thresholds or ()]
    if _kind(options) == "number":
        number = options.safe_lora_num_proj_layers
        return [*swept, _Rule(number=number)] if number is not None else []
    if options.safe_lora_threshold is None:
        return swept
    own = _Rule(threshold=options.safe_lora_threshold)
    return [*(rule for rule in swept if rule != own), own]
