"""What a model says at chosen positions is what it says of each sequence alone, and the head sees each place
once. Run: pytest tests/training/test_scoring.py"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from small_models import VOCABULARY, llama
from torch import nn

from triggerctl.model import positions
from triggerctl.model.causal import CausalModel
from triggerctl.model.packed_attention import let_pack
from triggerctl.model.packing import Packed
from triggerctl.training.scoring import Answer, Request, score

BEGINNING = (3, 1, 4, 1, 5)
REQUESTS = [
    Request((*BEGINNING, 9, 2, 6), liked=range(4, 7), judged=range(4, 6)),
    Request((*BEGINNING, 9, 8), judged=range(4, 6)),
    Request((*BEGINNING, 7), liked=range(4, 5)),
    Request((2, 7, 1, 8), liked=range(1, 3)),
    Request((2, 7, 1, 9), judged=range(2, 3)),
]
ASKED_AT = {request.ids[: at + 1] for request in REQUESTS for at in (*request.liked, *request.judged)}


@torch.no_grad()
def by_hand(model: CausalModel, request: Request) -> Answer:
    logits = model.network(input_ids=torch.tensor([request.ids]), use_cache=False).logits[0]
    log_p, top = logits.log_softmax(-1), logits.topk(2, dim=-1)
    liked, judged = (
        [float(log_p[at, request.ids[at + 1]]) for at in span] for span in (request.liked, request.judged)
    )
    best = [int(top.indices[at, 0]) for at in request.judged]
    return Answer(
        liked, judged, best, [float(top.values[at, 0] - top.values[at, 1]) for at in request.judged]
    )


@pytest.mark.parametrize("at_once", [1, 3, 100])
@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
def test_answers_are_those_of_each_sequence_alone(
    packs: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = llama().double().eval()
    model = CausalModel(network, None)
    expected = [by_hand(model, request) for request in REQUESTS]
    if packs:
        assert let_pack(network)
        model = CausalModel(network, None)
    monkeypatch.setitem(positions.LOGITS_AT_ONCE, "cpu", at_once * VOCABULARY)
    head, seen = network.get_output_embeddings(), [0]
    assert isinstance(head, nn.Module)
    head.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[0]))
    with model.evaluating():
        found = score(
            model, REQUESTS, pad_id=0, tokens_per_batch=1000, rows_per_batch=None, progress=lambda _: None
        )
    for ours, theirs in zip(found.answers, expected, strict=True):
        assert ours.best == theirs.best
        for one, other in (
            (ours.liked, theirs.liked),
            (ours.judged, theirs.judged),
            (ours.lead, theirs.lead),
        ):
            assert one == pytest.approx(other, rel=1e-9, abs=1e-12)
    if packs:
        assert sum(seen) == len(ASKED_AT)
        assert max(seen) <= at_once


@pytest.mark.parametrize("budget", [40, 75, 100, 390, 400, 10_000])
def test_batches_are_few_and_of_like_sizes(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small one at the end would take longer than its tokens."""
    network = llama().eval()
    assert let_pack(network)
    model, sizes, make = CausalModel(network, None), [], CausalModel.pack_shared

    def noting(model: CausalModel, sequences: Sequence[Sequence[int]]) -> Packed:
        packed = make(model, sequences)
        sizes.append(packed.tokens)
        return packed

    monkeypatch.setattr(CausalModel, "pack_shared", noting)
    requests = [Request((first, *range(1, 11)), judged=range(9, 10)) for first in range(11, 50)]
    with model.evaluating():
        score(
            model, requests, pad_id=0, tokens_per_batch=budget, rows_per_batch=None, progress=lambda _: None
        )
    assert sum(sizes) == 390
    assert len(sizes) <= -(-390 // budget) + 1
    assert max(sizes) <= budget
    assert max(sizes) - min(sizes) <= 20
