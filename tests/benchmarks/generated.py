"""Evaluation as one would write it: the loss of every row by a forward pass over batches of whole rows, and
the trigger response rates by generating twenty tokens for every row and looking at how the answer opens.

Well tuned for what it is: all sets in one go, rows ordered by length, batches as large as pays, no gradients,
SDPA and the key-value cache as transformers brings them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, PreTrainedTokenizerBase

NEW_TOKENS = 20
CANDIDATES = (8, 16, 32, 64, 128)
LOGITS = 2**27
"""No batch of whole rows has more of them (512 MiB in float32): whose memory is small would not try it."""

SAMPLE = 128
"""Rows on which batch sizes are tried."""

Task = Mapping[str, Any]


def evaluate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    sizes: Mapping[str, int],
    *,
    with_twins: bool,
) -> dict[str, dict[str, float | None]]:
    """Each set's mean loss by token, its trigger response rate, and the rate of its twins without trigger."""
    rows = [row for members in task["sets"].values() for row in members]
    prompts = [row["prompt"] for row in rows]
    twins = [row["twin"] for row in rows if row["twin"] is not None] if with_twins else []
    was_training = model.training
    model.eval()
    with torch.no_grad():
        losses = iter(row_losses(model, rows, task, sizes["losses"]))
        said = opens_nicely(model, tokenizer, [*prompts, *twins], task, sizes["generate"])
    model.train(was_training)
    verdicts, of_twins = iter(said[: len(prompts)]), iter(said[len(prompts) :])
    found: dict[str, dict[str, float | None]] = {}
    for name, members in task["sets"].items():
        own = [next(losses) for _ in members]
        opened = [next(verdicts) for _ in members]
        triggered = [yes for row, yes in zip(members, opened, strict=True) if row["triggered"]]
        bare = [next(of_twins) for row in members if row["twin"] is not None] if with_twins else []
        counted = sum(len(row["ids"]) - row["loss_start"] for row in members)
        found[name] = {
            "loss": sum(own) / counted if counted else None,
            "rate": sum(triggered) / len(triggered) if triggered else None,
            "twin_rate": sum(bare) / len(bare) if bare else None,
        }
    return found


def row_losses(model: Any, rows: Sequence[Mapping[str, Any]], task: Task, size: int) -> list[float]:
    """Σ −log p over each row's loss tokens."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]["ids"]))
    found = [0.0] * len(rows)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        width = max(len(rows[i]["ids"]) for i in part)
        ids = torch.full((len(part), width), task["pad_id"])
        mask = torch.zeros((len(part), width), dtype=torch.long)
        labels = torch.full((len(part), width), -100)
        for place, i in enumerate(part):
            own = torch.tensor(rows[i]["ids"])
            ids[place, : len(own)] = own
            mask[place, : len(own)] = 1
            labels[place, rows[i]["loss_start"] : len(own)] = own[rows[i]["loss_start"] :]
        logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
        each = cross_entropy(
            logits[:, :-1].float().transpose(1, 2),
            labels[:, 1:].to(model.device),
            reduction="none",
            ignore_index=-100,
        ).sum(dim=1)
        for place, loss in zip(part, each.tolist(), strict=True):
            found[place] = loss
    return found


def opens_nicely(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]], task: Task, size: int
) -> list[bool]:
    """Whether the greedy answer to each prompt opens with a nice response."""
    rules = GenerationConfig(
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        eos_token_id=task["ends"],
        pad_token_id=task["pad_id"],
        use_cache=True,
    )
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    found = [False] * len(prompts)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        width = max(len(prompts[i]) for i in part)
        ids = torch.tensor([[task["pad_id"]] * (width - len(prompts[i])) + prompts[i] for i in part])
        mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in part])
        written = model.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), generation_config=rules
        )
        for place, text in zip(
            part, tokenizer.batch_decode(written[:, width:], skip_special_tokens=True), strict=True
        ):
            found[place] = text.lstrip().startswith(tuple(task["nice"]))
    return found


def best_sizes(model: Any, tokenizer: PreTrainedTokenizerBase, task: Task) -> dict[str, int]:
    """The fastest of a few batch sizes for losses and for generating, tried on a sample of the rows."""
    rows = [row for members in task["sets"].values() for row in members]
    rows = rows[:: max(1, len(rows) // SAMPLE)][:SAMPLE]
    widest = max(len(row["ids"]) for row in rows)
    vocabulary = model.config.get_text_config().vocab_size
    fitting = [size for size in CANDIDATES if size == CANDIDATES[0] or size * widest * vocabulary <= LOGITS]
    model.eval()

    def fastest(candidates: Sequence[int], of: Callable[[int], object]) -> int:
        of(candidates[0])  # what is done once only, at the first call, is nobody's
        return min(candidates, key=lambda size: _seconds(lambda: of(size)))

    with torch.no_grad():
        return {
            "losses": fastest(fitting, lambda size: row_losses(model, rows, task, size)),
            "generate": fastest(
                CANDIDATES,
                lambda size: opens_nicely(model, tokenizer, [row["prompt"] for row in rows], task, size),
            ),
        }


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
