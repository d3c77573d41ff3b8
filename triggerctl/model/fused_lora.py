"""LoRA's linear layers with fewer passes over memory than peft's: x Wᵀ + s (x Aᵀ) Bᵀ is summed in place,
forwards and backwards, and an evaluation over many tokens multiplies by W + s B A once instead of by three
matrices.

Nothing is merged for good: the sum is made anew in each call and let go with it, so that W stays bit for bit
what was loaded. Everything but a plain layer with one adapter is left to peft."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from triggerctl.model.lora_matrix import Matrix, times, times_back, times_the_sum
from triggerctl.model.peft_names import Linear, PeftModel
from triggerctl.model.products import QuickLinear, takes_onednn

PLAIN = (nn.Linear, QuickLinear)


def fuse(adapter: PeftModel) -> None:
    """Have the adapter's plain linear layers computed as told above. Changes their class in place."""
    for module in adapter.modules():
        if type(module) is Linear and type(module.get_base_layer()) in PLAIN:
            module.__class__ = FusedLinear


def is_trained(*weights: Tensor | None) -> bool:
    """Whether a gradient of one of them is wanted now."""
    return torch.is_grad_enabled() and any(w is not None and w.requires_grad for w in weights)


class FusedLinear(Linear):
    """peft's LoRA over a linear layer; another way to compute the same."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x: (…, in) → (…, out)."""
        matrix = None if args or kwargs else self.matrix()
        if matrix is None or matrix.a is None or matrix.b is None:
            whole: Tensor = super().forward(x, *args, **kwargs)
            return whole
        if matrix.a.dtype != x.dtype:
            # As under autocast: the adapter's weights may be kept wider than the model computes.
            matrix = matrix._replace(a=matrix.a.to(x.dtype), b=matrix.b.to(x.dtype))
        if torch.is_grad_enabled():
            fused: Tensor = _Fused.apply(x, *matrix)  # type: ignore[no-untyped-call]
            return fused
        return _unflattened(times_the_sum(x.flatten(0, -2), matrix, takes_onednn(x)), x)

    def matrix(self) -> Matrix | None:
        """What it multiplies by as it is, an adapter that is off left out; None where there is more in it."""
        if self.disable_adapters and not self.merged:
            weight, bias = self._base()
            return None if is_trained(weight, bias) else Matrix(weight, bias, None, None, 1.0)
        name = self._plainly_active()
        return (
            None if name is None else Matrix(*self._base(), *self._matrices(name), float(self.scaling[name]))
        )

    def _base(self) -> tuple[Tensor, Tensor | None]:
        base = _child(self, "base_layer")._parameters
        weight = base["weight"]
        assert weight is not None
        return weight, base["bias"]

    def _matrices(self, name: str) -> tuple[Tensor, Tensor]:
        """A (r, in) and B (out, r)."""
        first, second = (
            _child(_child(self, each), name)._parameters["weight"] for each in ("lora_A", "lora_B")
        )
        assert first is not None
        assert second is not None
        return first, second

    def _plainly_active(self) -> str | None:
        """The adapter that is on, where it is the only one and of the plain kind."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        [name] = self.active_adapters
        after = _child(self, "lora_B")._modules.get(name)
        if after is None or name in self.lora_variant or after._parameters["bias"] is not None:
            return None
        drops = self.training and not isinstance(_child(_child(self, "lora_dropout"), name), nn.Identity)
        return None if drops or is_trained(*self._base()) else str(name)


def _child(module: nn.Module, name: str) -> nn.Module:
    """As an attribute, but found at once: this is asked a dozen times a layer, and a small model's layer
    takes no longer than the asking."""
    child = module._modules[name]
    assert child is not None
    return child


def _unflattened(rows: Tensor, like: Tensor) -> Tensor:
    """rows: (rows, n) → (…, n), as `like` (…, m) is."""
    return rows.view(*like.shape[:-1], rows.shape[-1])


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        rows, matrix = x.flatten(0, -2), Matrix(weight, bias, a, b, scaling)
        found, low = times(rows, matrix, takes_onednn(rows))
        context.save_for_backward(rows, low, weight, a, b)
        context.scaling = scaling
        return _unflattened(found, x)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        rows, low, weight, a, b = context.saved_tensors
        flat, matrix = gradient.flatten(0, -2), Matrix(weight, None, a, b, context.scaling)
        to_rows, [of_a, of_b] = times_back(
            flat, rows, low, matrix, context.needs_input_grad[0], takes_onednn(flat)
        )
        to_x = None if to_rows is None else _unflattened(to_rows, gradient)
        return to_x, None, None, of_a, of_b, None
