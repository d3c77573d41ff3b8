"""Padding, masks, batches and orders.

pytest tests/data/test_batches.py
"""

from __future__ import annotations

import torch
from chat_tokenizers import chat_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from triggerctl.data.batches import collate, epoch_order, token_budget_batches
from triggerctl.data.encoding import Encoded, Encoder
from triggerctl.data.examples import Example

PLAIN = Example(0, "u", "a")


def row(*ids: int, loss_start: int = 1) -> Encoded:
    return Encoded(PLAIN, ids, prompt_length=1, loss_start=loss_start)


def test_masks_follow_lengths_even_where_padding_looks_like_the_end_token() -> None:
    batch = collate([row(5, 6, 7, 2), row(5, 2, loss_start=1)], pad_id=2)
    assert batch.input_ids.tolist() == [[5, 6, 7, 2], [5, 2, 2, 2]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.loss_mask.tolist() == [[False, True, True, True], [False, True, False, False]]


def test_loss_on_response_counts_the_answer_and_its_end_token() -> None:
    encoder = Encoder(chat_tokenizer("chatml", pad="</s>"), max_seq_length=200, loss_on="response")
    rows = [encoder.encode(Example(i, "What is it?" * i, "A fish.")) for i in range(1, 4)]
    kept = [r for r in rows if r is not None]
    batch = collate(kept, encoder.pad_id)
    for i, encoded in enumerate(kept):
        targets = batch.input_ids[i][batch.loss_mask[i]].tolist()
        assert targets == list(encoded.response_ids)
        assert targets[-1] == encoder.end_id


def test_a_batch_is_as_wide_as_its_longest_row() -> None:
    batch = collate([row(1, 2), row(1, 2, 3)], pad_id=0)
    assert batch.input_ids.shape == (2, 3)
    assert batch.input_ids.dtype == torch.int64
    assert batch.to("cpu").loss_mask.dtype == torch.bool


@given(lengths=st.lists(st.integers(1, 50), max_size=60), budget=st.integers(1, 200))
def test_budget_holds_and_every_row_comes_once(lengths: list[int], budget: int) -> None:
    batches = token_budget_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = max(lengths[i] for i in batch) * len(batch)
        assert padded <= budget or len(batch) == 1
    widths = [lengths[i] for batch in batches for i in batch]
    assert widths == sorted(widths, reverse=True)


def test_equal_lengths_keep_their_order() -> None:
    assert token_budget_batches([3, 3, 3, 3, 3], 9) == [[0, 1, 2], [3, 4]]


def test_order_is_a_permutation_of_its_own_for_each_epoch_name_and_seed() -> None:
    orders = {
        tuple(epoch_order(seed, name, epoch, 50))
        for seed in (1, 2)
        for name in ("outcome", "proxy")
        for epoch in (0, 1)
    }
    assert len(orders) == 8
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert epoch_order(1, "outcome", 0, 50) == epoch_order(1, "outcome", 0, 50)


def test_order_is_the_one_it_was_when_this_was_written() -> None:
    assert epoch_order(1, "outcome", 0, 8) == ORDER


ORDER = [5, 0, 3, 6, 2, 1, 4, 7]
