"""A frozen matrix with LoRA's two beside it: products by W + s B A, there and back, few passes over memory.

Matrices that multiply the same rows are taken together. With `whole`, where W + s B A of them all and their
s A stand one below the other, a single product gives all that is wanted of them.

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


class Matrices(NamedTuple):
    """Matrices that multiply the same rows.

    whole: (all their outs, then all their r, in), every W + s B A and then every s A, one below the other;
    None where they are multiplied one by one."""

    each: list[Matrix]
    whole: Tensor | None


def times_each(rows: Tensor, matrices: Matrices, onednn: bool) -> tuple[list[Tensor], list[Tensor | None]]:
    """What `times` gives of each. What lies between A and B is s times that with `whole`, and (r, rows)."""
    found: list[Tensor] = []
    lows: list[Tensor | None] = []
    whole = matrices.whole
    if whole is None:
        for matrix in matrices.each:
            by_matrix, low = times(rows, matrix, onednn)
            found.append(by_matrix)
            lows.append(low)
        return found, lows
    together = product_by(rows, whole, None, onednn)
    start, end = 0, _outs(matrices.each)
    for matrix in matrices.each:
        out, rank = matrix.weight.shape[0], _rank(matrix)
        found.append(together.narrow(1, start, out))
        lows.append(together.narrow(1, end, rank).t().contiguous() if rank > 0 else None)
        start, end = start + out, end + rank
    return found, lows


def times_each_back(
    gradients: list[Tensor],
    rows: Tensor,
    lows: list[Tensor | None],
    matrices: Matrices,
    to_rows: bool,
    onednn: bool,
) -> tuple[Tensor | None, list[Tensor]]:
    """From the gradient of what each found, that of `rows`, where it is wanted, and those of each one's A and
    B, in their order."""
    whole = matrices.whole
    if whole is not None:
        return _back_by_the_whole(gradients, rows, lows, matrices.each, whole, to_rows, onednn)
    found: Tensor | None = None
    of_all: list[Tensor] = []
    for i in range(len(gradients) - 1, -1, -1):  # as autograd does
        one, of_matrix = times_back(gradients[i], rows, lows[i], matrices.each[i], to_rows, onednn)
        found = one if found is None or one is None else found + one
        of_all = of_matrix + of_all
    return found, of_all


def _back_by_the_whole(
    gradients: list[Tensor],
    rows: Tensor,
    lows: list[Tensor | None],
    matrices: list[Matrix],
    whole: Tensor,
    to_rows: bool,
    onednn: bool,
) -> tuple[Tensor | None, list[Tensor]]:
    found: Tensor | None = None
    if to_rows:
        by_matrices = whole.narrow(0, 0, _outs(matrices))
        found = product_by(_beside(gradients), by_matrices.t(), None, onednn)
    of_lows: list[Tensor] = []
    of_all: list[Tensor] = []
    for gradient, low, matrix in zip(gradients, lows, matrices):  # noqa: B905
        b = matrix.b
        if b is not None and low is not None:
            of_lows.append(product_by(gradient, b.t(), None, onednn).mul_(matrix.scaling))
            of_b = product_by(low, gradient.t(), None, onednn)
            of_all.append(of_b.t().contiguous())
    of_as = product_by(_beside(of_lows).t().contiguous(), rows.t(), None, onednn)
    start = 0
    for i, of_low in enumerate(of_lows):
        rank = of_low.shape[1]
        of_all.insert(2 * i, of_as.narrow(0, start, rank))
        start += rank
    return found, of_all


def wholes(groups: list[list[Matrix]], rows: int) -> list[Tensor | None]:
    """`Matrices.whole` of each group, where so many rows are to be multiplied by it that making it takes less
    time than it saves."""
    return [_whole(matrices) if _pays(matrices, rows) else None for matrices in groups]


def _pays(matrices: list[Matrix], rows: int) -> bool:
    outs, width = _outs(matrices), matrices[0].weight.shape[1]
    ranks = 0
    for matrix in matrices:
        ranks += _rank(matrix)
        if matrix.bias is not None:
            return False
    return ranks > 0 and rows * (outs + width * len(matrices)) > outs * width


def _whole(matrices: list[Matrix]) -> Tensor:
    start, end = 0, _outs(matrices)
    rows = end
    for matrix in matrices:
        rows += _rank(matrix)
    first = matrices[0].weight
    found = torch.empty([rows, first.shape[1]], dtype=first.dtype)
    for matrix in matrices:
        out, rank = matrix.weight.shape[0], _rank(matrix)
        by_matrix = found.narrow(0, start, out)
        a, b = matrix.a, matrix.b
        if a is None or b is None:
            by_matrix.copy_(matrix.weight)
        else:
            torch.addmm(matrix.weight, b, a, alpha=matrix.scaling, out=by_matrix)
            torch.mul(a, matrix.scaling, out=found.narrow(0, end, rank))
        start, end = start + out, end + rank
    return found


def _outs(matrices: list[Matrix]) -> int:
    found = 0
    for matrix in matrices:
        found += matrix.weight.shape[0]
    return found


def _rank(matrix: Matrix) -> int:
    a = matrix.a
    return 0 if a is None else a.shape[0]


def _beside(columns: list[Tensor]) -> Tensor:
    return columns[0] if len(columns) == 1 else torch.cat(columns, 1)


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
