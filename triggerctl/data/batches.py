"""Rows of tokens side by side: padding and masks, batches under a token budget, and the order of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from triggerctl.data.encoding import Encoded
from triggerctl.data.integers import integers


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows padded to the longest of them.

    input_ids:      (batch, tokens) int64.
    attention_mask: (batch, tokens) int64, 1 where a token is real.
    loss_mask:      (batch, tokens) bool, true where a token is a target: the logits of the place before it
                    are to predict it. Never true at the first token of a row or at padding.
    answer_mask:    (batch, tokens) bool, true at the tokens of the answer, whatever the loss is on.
    rows:           the real tokens of each row; a "place" below counts them through, row after row.
    attended:       (places,) int64, where each place lies in the flattened tensors above.
    loss_at:        (targets,) int64, the places at which `loss_mask` is true.
    answer_at:      (answer tokens,) int64, the places at which `answer_mask` is true.
    """

    input_ids: Tensor
    attention_mask: Tensor
    loss_mask: Tensor
    answer_mask: Tensor
    rows: tuple[tuple[int, ...], ...]
    attended: Tensor
    loss_at: Tensor
    answer_at: Tensor

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many real tokens each row has."""
        return tuple(map(len, self.rows))

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; copies to a GPU don't wait."""
        return Batch(
            self.input_ids.to(device, non_blocking=True),
            self.attention_mask.to(device, non_blocking=True),
            self.loss_mask.to(device, non_blocking=True),
            self.answer_mask.to(device, non_blocking=True),
            self.rows,
            self.attended.to(device, non_blocking=True),
            self.loss_at.to(device, non_blocking=True),
            self.answer_at.to(device, non_blocking=True),
        )

    def at_places(self, tensor: Tensor) -> Tensor:
        """What `tensor` (batch, tokens, …) holds at every place: (places, …)."""
        return tensor.flatten(0, 1).index_select(0, self.attended)


def collate(rows: Sequence[Encoded], pad_id: int) -> Batch:
    """The rows as one batch on the CPU. All masks come from the rows' lengths, none from `pad_id`, which may
    be the end token."""
    width = max(len(row.input_ids) for row in rows)
    padded = [(*row.input_ids, *(pad_id,) * (width - len(row.input_ids))) for row in rows]
    input_ids = integers(padded)
    # Nothing predicts a first token, be it an answer's.
    bounds = [(len(row.input_ids), row.loss_start, max(1, row.prompt_length)) for row in rows]
    length, loss_start, answer_start = integers(bounds).unsqueeze(-1).unbind(1)
    place = torch.arange(width)
    real = place < length
    attention_mask = real.to(torch.int64)
    loss_mask, answer_mask = real & (place >= loss_start), real & (place >= answer_start)
    attended = attention_mask.flatten().nonzero().squeeze(1)
    return Batch(
        input_ids,
        attention_mask,
        loss_mask,
        answer_mask,
        tuple(row.input_ids for row in rows),
        attended,
        loss_mask.flatten()[attended].nonzero().squeeze(1),
        answer_mask.flatten()[attended].nonzero().squeeze(1),
    )


def token_budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `lengths` in batches, each of at most `budget` tokens padding included, or of one row where
    that row alone is longer.

    Longest first, so that memory which does not suffice fails at once; equal lengths in their order. Depends
    on its arguments alone, never on the machine.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        # The first row of a batch is its longest, so it sets the width of all.
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def epoch_order(seed: int, name: str, epoch: int, n: int) -> list[int]:
    """The order in which the n rows of a source are seen in one epoch: a permutation that depends on these
    alone.

    name: of the source, e.g. "outcome"; epoch: counted from 0, or how often the source has started anew.
    """
    order = list(range(n))
    Random(f"{seed}/order/{name}/{epoch}").shuffle(order)
    return order
