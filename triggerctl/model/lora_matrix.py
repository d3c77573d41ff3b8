"""A frozen matrix with LoRA's two beside it: products by W + s B A, there and back, few passes over memory.

TorchScript compiles this (`programs.py`), which knows no annotations put off by `from __future__`."""

from typing import NamedTuple

import torch
from torch import Tensor

from triggerctl.model.products import product_by


class Matrix(NamedTuple):
    """A frozen W (out, in) with its bias, and LoRA's A (r, in) and B (out, r) where there is an adapter."""

    weight: Tensor
    bias: Tensor | None
    a: Tensor | None
    b: Tensor | None
    scaling: float


def times(rows: Tensor, matrix: Matrix, onednn: bool) -> tuple[Tensor, Tensor | None]:
    """rows (rows, in) → rows Wᵀ + bias + s (rows Aᵀ) Bᵀ, and what lies between A and B."""
    found = product_by(rows, matrix.weight, matrix.bias, onednn)
    a, b = matrix.a, matrix.b
    if a is None or b is None:
        return found, None
    low = product_by(rows, a, None, onednn)
    return found.addmm_(low, b.t(), alpha=matrix.scaling), low


def times_the_sum(rows: Tensor, matrix: Matrix, onednn: bool) -> Tensor:
    """The same by W + s B A, made for the occasion, where the rows are so many that it takes less time."""
    a, b = matrix.a, matrix.b
    out, width = matrix.weight.shape[0], matrix.weight.shape[1]
    if a is None or b is None or rows.shape[0] * (out + width) <= out * width:
        return times(rows, matrix, onednn)[0]
    merged = torch.addmm(matrix.weight, b, a, alpha=matrix.scaling)
    return product_by(rows, merged, matrix.bias, onednn)


def times_back(
    gradient: Tensor, rows: Tensor, low: Tensor | None, matrix: Matrix, to_rows: bool, onednn: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """gradient (rows, out) → the gradient of `rows` (rows, in), where it is wanted, and those of A (r, in)
    and B (out, r), where there are such. `low` (rows, r): what lay between A and B."""
    found: Tensor | None = None
    if to_rows:
        found = product_by(gradient, matrix.weight.t(), None, onednn)
    a, b = matrix.a, matrix.b
    if a is None or b is None or low is None:
        return found, []
    of_low = product_by(gradient, b.t(), None, onednn).mul_(matrix.scaling)
    if found is not None:
        found = found.addmm_(of_low, a)
    of_a = product_by(of_low.t(), rows.t(), None, onednn)
    # As B lies in memory: a fused optimiser reads both side by side.
    of_b = product_by(low.t(), gradient.t(), None, onednn).t().contiguous().mul_(matrix.scaling)
    return found, [of_a, of_b]
