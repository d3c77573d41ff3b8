"""Keys and values of earlier tokens, kept where those to come are to stand: transformers' own cache copies
all of them in every layer for each token more, a quarter of the time a small model takes to write one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class _LayerWithRoom(DynamicLayer):
    """keys and values: (heads, rows, tokens, size), and `room` for so many tokens more; beyond it,
    transformers' own layer."""

    def __init__(self, keys: Tensor, values: Tensor, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self._whole = tuple(_with_room(each, room) for each in (keys, values))
        self._show(keys.shape[2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The next tokens' keys and values, each (rows, heads, tokens, size); returns those of all."""
        start, more = self.get_seq_length(), key_states.shape[-2]
        if start + more > self._whole[0].shape[-2] or not self._stands_there():
            found: tuple[Tensor, Tensor] = super().update(key_states, value_states, *args, **kwargs)
            return found
        for whole, states in zip(self._whole, (key_states, value_states), strict=True):
            whole.narrow(-2, start, more).copy_(states)
        return self._show(start + more)

    def _stands_there(self) -> bool:
        """Whether nobody has put other keys and values in place of what was shown: other rows, or none."""
        return self.keys is not None and self.keys.data_ptr() == self._whole[0].data_ptr()

    def _show(self, tokens: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (whole.narrow(-2, 0, tokens) for whole in self._whole)
        return self.keys, self.values


def cache_with_room(layers: Iterable[tuple[Tensor, Tensor]], room: int) -> DynamicCache:
    """A cache of each layer's keys and values (heads, rows, tokens, size), with room for so many tokens
    more."""
    cache = DynamicCache()
    cache.layers = [_LayerWithRoom(keys, values, room) for keys, values in layers]
    return cache


def _with_room(states: Tensor, room: int) -> Tensor:
    heads, rows, tokens, size = states.shape
    whole = states.new_empty(rows, heads, tokens + room, size)
    whole.narrow(-2, 0, tokens).copy_(states.transpose(0, 1))
    return whole
