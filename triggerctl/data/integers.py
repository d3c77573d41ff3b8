"""Tensors of whole numbers from lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def integers(numbers: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
    """The same as int64. By way of NumPy, which reads a list in a quarter of the time `torch.tensor` takes: a
    small model's update consists of a few dozen of them."""
    return torch.from_numpy(np.array(numbers, dtype=np.int64))
