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

from triggerctl.model.peft_names import Linear, PeftModel
from triggerctl.model.products import QuickLinear, product


def fuse(adapter: PeftModel) -> None:
    """Have the adapter's plain linear layers computed as told above. Changes their class in place."""
    for module in adapter.modules():
        if type(module) is Linear and type(module.get_base_layer()) in (nn.Linear, QuickLinear):
            module.__class__ = FusedLinear


class FusedLinear(Linear):
    """peft's LoRA over a linear layer; another way to compute the same."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x: (…, in) → (…, out)."""
        name = self._plainly_active()
        if name is None or args or kwargs:
            whole: Tensor = super().forward(x, *args, **kwargs)
            return whole
        weight, bias = self._base()
        # As under autocast: the adapter's weights may be kept wider than the model computes.
        a, b = self._matrices(name)
        if a.dtype != x.dtype:
            a, b = a.to(x.dtype), b.to(x.dtype)
        scaling = float(self.scaling[name])
        if torch.is_grad_enabled():
            fused: Tensor = _Fused.apply(x, weight, bias, a, b, scaling)  # type: ignore[no-untyped-call]
            return fused
        rows, (out, width) = x.numel() // x.shape[-1], weight.shape
        if rows * (out + width) > out * width:
            merged = torch.addmm(weight, b, a, alpha=scaling)
            return _unflattened(product(x.flatten(0, -2), merged, bias), x)
        found, _ = _forward(x.flatten(0, -2), weight, bias, a, b, scaling)
        return _unflattened(found, x)

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
        trained = any(weight is not None and weight.requires_grad for weight in self._base())
        return None if drops or trained else str(name)


def _child(module: nn.Module, name: str) -> nn.Module:
    """As an attribute, but found at once: this is asked a dozen times a layer, and a small model's layer
    takes no longer than the asking."""
    child = module._modules[name]
    assert child is not None
    return child


def _forward(
    rows: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    """rows: (rows, in) → outputs (rows, out) and what lies between A and B (rows, r)."""
    low = product(rows, a)
    return product(rows, weight, bias).addmm_(low, b.T, alpha=scaling), low


def _unflattened(rows: Tensor, like: Tensor) -> Tensor:
    """rows: (rows, n) → (…, n), as `like` (…, m) is."""
    return rows.view(*like.shape[:-1], rows.shape[-1])


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        rows = x.flatten(0, -2)
        found, low = _forward(rows, weight, bias, a, b, scaling)
        context.save_for_backward(rows, low, weight, a, b)
        context.scaling = scaling
        return _unflattened(found, x)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        rows, low, weight, a, b = context.saved_tensors
        flat = gradient.flatten(0, -2)
        of_low = product(flat, b.T).mul_(context.scaling)
        to_x = None
        if context.needs_input_grad[0]:
            to_x = _unflattened(product(flat, weight.T).addmm_(of_low, a), gradient)
        to_a, to_b = product(of_low.T, rows.T), product(low.T, flat.T).T.mul(context.scaling)
        return to_x, None, None, to_a, to_b, None
