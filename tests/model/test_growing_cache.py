"""A cache with room gives what transformers' own gives, and copies nothing for a token more.
Run: pytest tests/model/test_growing_cache.py"""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from triggerctl.model.growing_cache import cache_with_room

HEADS, ROWS, TOKENS, SIZE, ROOM = 2, 3, 5, 4, 4


def states(tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, ROWS, HEADS, tokens, SIZE, generator=generator)
    return keys, values


def both() -> tuple[DynamicCache, DynamicCache]:
    theirs, layers = DynamicCache(), []
    for layer in range(2):
        keys, values = states(TOKENS, layer)
        theirs.update(keys, values, layer)
        layers.append((keys.transpose(0, 1), values.transpose(0, 1)))
    return cache_with_room(layers, ROOM), theirs


def check(ours: DynamicCache, theirs: DynamicCache, tokens: int, seed: int) -> None:
    for layer in range(2):
        keys, values = states(tokens, seed + layer)
        found, expected = (cache.update(keys, values, layer) for cache in (ours, theirs))
        assert all(map(torch.equal, found, expected))
    assert ours.get_seq_length() == theirs.get_seq_length()


def test_tokens_are_added_as_in_transformers_own_beyond_the_room_too() -> None:
    ours, theirs = both()
    for seed, tokens in enumerate((1, 2, 1, 1, 3)):  # the last two don't fit
        check(ours, theirs, tokens, seed)


def test_nothing_is_copied_while_there_is_room() -> None:
    cache, _ = both()
    before = cache.update(*states(1, 0), 0)
    after = cache.update(*states(1, 1), 0)
    assert [each.data_ptr() for each in before] == [each.data_ptr() for each in after]


@pytest.mark.parametrize("change", ["rows", "crop"])
def test_what_was_chosen_of_it_is_gone_on_from(change: str) -> None:
    ours, theirs = both()
    check(ours, theirs, 1, 9)
    for cache in (ours, theirs):
        if change == "rows":
            cache.batch_select_indices(torch.tensor([2, 0, 1]))
        else:
            cache.crop(-2)
    check(ours, theirs, 1, 4)
    check(ours, theirs, 1, 6)
