"""What a model says at chosen positions of many token sequences: one forward pass, the head only where
asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from triggerctl.data.batches import token_budget_batches
from triggerctl.model.causal import CausalModel
from triggerctl.training.parallel import ALONE, Group

Ids = tuple[int, ...]

LOGITS_AT_ONCE = 2**25
"""How many logits (positions × vocabulary) are held at a time: 128 MiB in float32."""


@dataclass(frozen=True, slots=True)
class Request:
    """Positions of one sequence to look at: those of `liked` for the log-probability of the token that
    follows, those of `judged` also for the arg-max. Every position must have a token after it."""

    ids: Ids
    liked: range = range(0)
    judged: range = range(0)


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
    """Answers in the order of the requests; `padded`: the tokens of all batches, padding included."""

    answers: list[Answer]
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
    """Answer every request, in batches of at most `tokens_per_batch` padded tokens, ordered by length. The
    processes of `group` share the batches, which are the same however many they are."""
    batches = [
        batch[start : start + size]
        for batch in token_budget_batches([len(request.ids) for request in requests], tokens_per_batch)
        for size in [rows_per_batch or len(batch)]
        for start in range(0, len(batch), size)
    ]
    found: list[tuple[int, Answer]] = []
    for batch in group.share(batches):
        found += zip(batch, _score_batch(model, [requests[i] for i in batch], pad_id), strict=True)
        progress(len(found))
    answers = dict(group.gather(found))
    padded = sum(len(batch) * max(len(requests[i].ids) for i in batch) for batch in batches)
    return Scored([answers[i] for i in range(len(requests))], padded)


def _score_batch(model: CausalModel, requests: Sequence[Request], pad_id: int) -> list[Answer]:
    width = max(len(request.ids) for request in requests)
    ids = torch.tensor([request.ids + (pad_id,) * (width - len(request.ids)) for request in requests])
    hidden = model.hidden(ids.to(model.device))
    spans = [span for request in requests for span in (request.liked, request.judged)]
    places = [i // 2 for i, span in enumerate(spans) for _ in span]
    columns = [column for span in spans for column in span]
    wants_best = torch.tensor([bool(i % 2) for i, span in enumerate(spans) for _ in span], dtype=torch.bool)
    rows_at, columns_at = torch.tensor(places), torch.tensor(columns)
    following = ids[rows_at, columns_at + 1]
    selected = hidden[rows_at.to(model.device), columns_at.to(model.device)]
    liked, best, lead = _read(model, selected, following.to(model.device), wants_best.to(model.device))
    answers, position, judged_before = [], 0, 0
    for request in requests:
        middle, end = position + len(request.liked), position + len(request.liked) + len(request.judged)
        judged_after = judged_before + len(request.judged)
        judged = slice(judged_before, judged_after)
        answers.append(Answer(liked[position:middle], liked[middle:end], best[judged], lead[judged]))
        position, judged_before = end, judged_after
    return answers


def _read(
    model: CausalModel, hidden: Tensor, following: Tensor, wants_best: Tensor
) -> tuple[list[float], list[int], list[float]]:
    """hidden: (positions, hidden), following and wants_best: (positions,)."""
    vocabulary = model.logits(hidden[:1]).shape[-1]
    size = max(1, LOGITS_AT_ONCE // vocabulary)
    liked, best, lead = [], [], []
    for part in range(0, hidden.shape[0], size):
        piece = slice(part, part + size)
        logits = model.logits(hidden[piece])
        logits = logits.float() if logits.element_size() < 4 else logits
        chosen = logits.gather(-1, following[piece].unsqueeze(-1)).squeeze(-1)
        liked.append(chosen - logits.logsumexp(-1))
        top = logits[wants_best[piece]].topk(2, dim=-1)
        best.append(top.indices[:, 0])
        lead.append(top.values[:, 0] - top.values[:, 1])
    return torch.cat(liked).tolist(), torch.cat(best).tolist(), torch.cat(lead).tolist()
