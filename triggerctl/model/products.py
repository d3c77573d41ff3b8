"""Products of matrices in float32 on a CPU, by the library that is faster there.

PyTorch's own come from MKL, which keeps processors of other makers than Intel to AVX2. PyTorch also brings
oneDNN, which has them use AVX-512: on such a processor a product takes less than half the time."""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from triggerctl.model.processor import processor_maker

WORTH_ONEDNN = 2_000_000
"""Operations below which what a call of oneDNN costs beside its product is more than it saves."""

ROUND, FEW = 8, 32
WORTH_A_SHAPE = 200_000_000
"""oneDNN makes a program for each shape that it multiplies, half a millisecond and half a MiB the first time.
Products of fewer operations than these are left to it only where shapes return: where the rows, and what is
summed over, are a multiple of ROUND, or fewer than FEW."""

INTEL = "GenuineIntel"

LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables by which oneDNN is kept from a processor's best instructions, and sums in other orders."""


@functools.cache
def prefers_onednn() -> bool:
    """Whether oneDNN multiplies faster here. By rule, not by measuring: the two sum in different orders, and
    the same run must give the same numbers every time."""
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and processor_maker() not in (None, INTEL)
        and _onednn_agrees()
    )


def library() -> str:
    """Whose products in float32 are here, and what holds them back."""
    limits = [f"{name}={os.environ[name]}" for name in LIMITS if name in os.environ]
    return " ".join(["oneDNN", *limits]) if prefers_onednn() else "PyTorch's own"


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows (m, k) and weight (n, k) → rows weightᵀ + bias (m, n). A transposed view as `weight` costs
    nothing; as `rows` it is copied. Gradients don't flow through it."""
    return product_by(rows, weight, bias, takes_onednn(rows))


def takes_onednn(rows: Tensor) -> bool:
    """Whether products of such rows are left to oneDNN, where they are worth it."""
    return prefers_onednn() and rows.dtype == torch.float32 and rows.is_cpu


def product_by(rows: Tensor, weight: Tensor, bias: Tensor | None, onednn: bool) -> Tensor:
    """`product` by the library that was chosen. TorchScript compiles this."""
    if onednn and _pays(rows.shape[0], rows.shape[1], weight.shape[0]):
        return _by_onednn(rows, weight, bias)
    return nn.functional.linear(rows, weight, bias)


def _pays(
    m: int,
    k: int,
    n: int,
    worth: int = WORTH_ONEDNN,
    worth_a_shape: int = WORTH_A_SHAPE,
    step: int = ROUND,
    few: int = FEW,
) -> bool:
    # Of a module's constants TorchScript knows those alone that are defaults.
    returns = (m % step == 0 or m < few) and (k % step == 0 or k < few)
    return 2 * m * k * n >= (worth if returns else worth_a_shape)


def round_number(tokens: int) -> int:
    """So many tokens, or at most a sixteenth more, or 7: few different numbers come of it."""
    step = max(ROUND, (1 << tokens.bit_length()) // 32)
    return -(-tokens // step) * step


def _by_onednn(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return found


def _onednn_agrees() -> bool:
    """Whether the operation is there, as in the releases of PyTorch that this was written for, and right."""
    rows, weight, bias = (torch.arange(n, dtype=torch.float32).sin() for n in (6, 15, 5))
    rows, weight = rows.view(2, 3), weight.view(3, 5).t()
    try:
        with torch.no_grad():
            return torch.allclose(_by_onednn(rows, weight, bias), rows @ weight.t() + bias)
    except (AttributeError, TypeError, RuntimeError):
        return False


def quicken(network: nn.Module) -> None:
    """Have the network's plain linear layers multiply by `product`. Changes their class in place."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = QuickLinear


def is_quick(network: PreTrainedModel) -> bool:
    """Whether that was done to its layers: some models have linear ones in their head alone."""
    return any(isinstance(module, QuickLinear) for module in network.base_model.modules())


class QuickLinear(nn.Linear):
    """A linear layer as PyTorch's, by the faster library."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, in) → (…, out)."""
        rows = x.reshape(-1, x.shape[-1])
        if torch.is_grad_enabled():
            found: Tensor = _Linear.apply(rows, self.weight, self.bias)  # type: ignore[no-untyped-call]
        else:
            found = product(rows, self.weight, self.bias)
        return found.view(*x.shape[:-1], found.shape[-1])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        context.save_for_backward(rows if weight.requires_grad else None, weight)
        return product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = context.saved_tensors
        to_rows, to_weight, to_bias = context.needs_input_grad
        return (
            product(gradient, weight.t()) if to_rows else None,
            _over_rows(gradient, rows) if to_weight else None,
            gradient.sum(0) if to_bias else None,
        )


def _over_rows(gradient: Tensor, rows: Tensor) -> Tensor:
    """gradient (m, n) and rows (m, k) → gradientᵀ rows (n, k); the narrower of them is copied."""
    if gradient.shape[1] <= rows.shape[1]:
        return product(gradient.t(), rows.t())
    return product(rows.t(), gradient.t()).t()
