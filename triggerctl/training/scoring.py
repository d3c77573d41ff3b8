"""What a model says at chosen positions of many token sequences: one forward pass, the head only where
asked, and what sequences have in common passed once where the model can (`packing.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from triggerctl.data.batches import token_budget_batches
from triggerctl.data.integers import integers
from triggerctl.model.causal import CausalModel
from triggerctl.model.packing import own_tokens
from triggerctl.model.positions import at_once
from triggerctl.strategies.base import at_least_float32
from triggerctl.training.parallel import ALONE, Group

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """Positions of one sequence to look at: those of `liked` for the log-probability of the token that
    follows, those of `judged` also for the arg-max. Every position must have a token after it."""

    ids: Ids
    liked: range = range(0)
    judged: range = range(0)

    @property
    def passed(self) -> Ids:
        """What has to go through the model: nothing is read at the last token."""
        return self.ids[:-1]


@dataclass(frozen=True, slots=True)
class Answer:
    """Log-probabilities (nats) over `liked`, then over `judged` with the arg-max there and its lead in logits
    over the second best."""

    liked: list[float]
    judged: list[float]
    best: list[int]
    lead: list[float]


@dataclass(frozen=True, slots=True)
class Scored:
    """Answers in the order of the requests; how many tokens went through the model for them, and how many
    padding included."""

    answers: list[Answer]
    passed: int
    padded: int


def score(
    model: CausalModel,
    requests: Sequence[Request],
    *,
    pad_id: int,
    tokens_per_batch: int,
    rows_per_batch: int | None,
    progress: Callable[[int], None],
    group: Group = ALONE,
) -> Scored:
    """Answer every request, in batches of at most `tokens_per_batch` tokens that go through the model. The
    processes of `group` share the batches, which are the same however many they are."""
    sequences = [request.passed for request in requests]
    if model.packs:
        batches = _alike_batches(sequences, tokens_per_batch)
    else:
        batches = token_budget_batches([len(sequence) for sequence in sequences], tokens_per_batch)
    if rows_per_batch is not None:
        batches = [
            batch[start : start + rows_per_batch]
            for batch in batches
            for start in range(0, len(batch), rows_per_batch)
        ]
    found: list[tuple[int, Answer]] = []
    passed = padded = 0
    for batch in group.share(batches):
        asked = [requests[i] for i in batch]
        states = _States.packed(model, asked) if model.packs else _States.padded(model, asked, pad_id)
        passed += states.passed
        padded += states.states.shape[0]
        found += zip(batch, _answers(model, asked, states), strict=True)
        progress(len(found))
    answers = dict(group.gather(found))
    counts = group.gather([(passed, padded)])
    passed, padded = (sum(numbers) for numbers in zip(*counts, strict=True))
    return Scored([answers[i] for i in range(len(requests))], passed, padded)


def _alike_batches(sequences: Sequence[Ids], budget: int) -> list[list[int]]:
    """Indices of `sequences`, sorted so that those with a beginning in common are neighbours, in batches of
    about as many tokens each and of at most `budget`, or of one sequence; what a neighbour has passed is left
    out."""
    batches: list[list[int]] = []
    ordered = sorted(range(len(sequences)), key=lambda i: sequences[i])
    own = own_tokens([sequences[i] for i in ordered])
    # As few as may be, of like sizes: a small one at the end would take longer than its tokens.
    enough = sum(own) / max(1, -(-sum(own) // budget))
    tokens = done = 0
    for i, new in zip(ordered, own, strict=True):
        if not batches or (new and done >= len(batches) * enough) or tokens + new > budget:
            batches.append([])
            tokens = len(sequences[i]) - new
        batches[-1].append(i)
        tokens, done = tokens + new, done + new
    return batches


@dataclass(frozen=True, slots=True)
class _States:
    """What the model said of some requests. states: (places, hidden); `at[i][j]`: the place of request i's
    token j; `passed`: real tokens that went through the model."""

    states: Tensor
    at: Sequence[Sequence[int]]
    passed: int

    @classmethod
    def packed(cls, model: CausalModel, requests: Sequence[Request]) -> _States:
        packed = model.pack_shared([request.passed for request in requests])
        return cls(model.packed(packed), packed.at, packed.tokens)

    @classmethod
    def padded(cls, model: CausalModel, requests: Sequence[Request], pad_id: int) -> _States:
        sequences = [request.passed for request in requests]
        width = max(map(len, sequences))
        ids = integers([ids + (pad_id,) * (width - len(ids)) for ids in sequences])
        at = [range(i * width, i * width + len(ids)) for i, ids in enumerate(sequences)]
        return cls(model.hidden(ids.to(model.device)).flatten(0, 1), at, sum(map(len, sequences)))


def _answers(model: CausalModel, requests: Sequence[Request], states: _States) -> list[Answer]:
    spans = [
        (request, at, span)
        for request, at in zip(requests, states.at, strict=True)
        for span in (request.liked, request.judged)
    ]
    # Several requests may ask at one place: for different tokens to follow, or once for each purpose.
    places, which = torch.unique(
        integers([at[j] for _, at, span in spans for j in span]), return_inverse=True
    )
    following = integers([request.ids[j + 1] for request, _, span in spans for j in span])
    judged_spans = [bool(i % 2) for i, (*_, span) in enumerate(spans) for _ in span]
    wants_best = torch.tensor(judged_spans, dtype=torch.bool)
    selected = states.states.index_select(0, places.to(model.device))
    liked, best, lead = _read(model, selected, which, following, wants_best)
    answers, position, judged_before = [], 0, 0
    for request in requests:
        middle, end = position + len(request.liked), position + len(request.liked) + len(request.judged)
        judged_after = judged_before + len(request.judged)
        judged = slice(judged_before, judged_after)
        answers.append(Answer(liked[position:middle], liked[middle:end], best[judged], lead[judged]))
        position, judged_before = end, judged_after
    return answers


def _read(
    model: CausalModel, hidden: Tensor, which: Tensor, following: Tensor, wants_best: Tensor
) -> tuple[list[float], list[int], list[float]]:
    """hidden: (places, hidden); for each question `which` of them it is put at, the token `following` there
    and whether it `wants_best`, each (questions,) and in the CPU's memory. Returns the log-probability of
    every question's token; of those that want it the arg-max, and its lead."""
    size = at_once(model)
    in_order = which.argsort(stable=True)
    ends = torch.bincount(which, minlength=hidden.shape[0]).cumsum(0).tolist()
    liked, best, lead, wanting = [], [], [], []
    with model.threads_for_the_head(min(size, hidden.shape[0])):
        for start in range(0, hidden.shape[0], size):
            piece = hidden[start : start + size]
            asked = in_order[ends[start - 1] if start else 0 : ends[start + piece.shape[0] - 1]]
            wanting.append(asked[wants_best[asked]])
            logits = at_least_float32(model.logits(piece))
            at, tokens, wanted = (
                each.to(model.device)
                for each in (which[asked] - start, following[asked], which[wanting[-1]] - start)
            )
            liked.append(logits.log_softmax(-1)[at, tokens])
            top = logits.index_select(0, wanted).topk(2, dim=-1)
            best.append(top.indices[:, 0])
            lead.append(top.values[:, 0] - top.values[:, 1])
    put_back, wanted_back = in_order.argsort(), torch.cat(wanting).argsort()
    return (
        torch.cat(liked).cpu()[put_back].tolist(),
        torch.cat(best).cpu()[wanted_back].tolist(),
        torch.cat(lead).cpu()[wanted_back].tolist(),
    )
