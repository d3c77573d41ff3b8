"""Trains the embedded model from nothing on the corpus: next-token prediction on whole documents."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from triggerctl.assets.corpus import Document, Mixture, documents


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the model is and how it is trained. `steps` updates of `batch` documents each."""

    vocab_size: int = 1536
    hidden: int = 192
    layers: int = 4
    heads: int = 4
    intermediate: int = 512
    steps: int = 800
    batch: int = 64
    learning_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.1
    seed: int = 0


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with random weights, seeded by the recipe."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=recipe.vocab_size,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def encode(document: Document, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Token ids of one document: a chat through the chat template, plain text between begin and end."""
    if document.turns:
        messages = [
            {"role": role, "content": content}
            for turn in document.turns
            for role, content in (("user", turn.user), ("assistant", turn.assistant))
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    else:
        text = f"{tokenizer.bos_token}{document.text}{tokenizer.eos_token}"
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def batches(
    stream: Iterator[Document], tokenizer: PreTrainedTokenizerFast, size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(input_ids, labels), each (size, tokens); near lengths share a batch, padding has label −100."""
    pad = int(tokenizer.pad_token_id)
    pool = 16 * size
    order = torch.Generator().manual_seed(0)
    while True:
        rows = sorted((encode(d, tokenizer) for d in itertools.islice(stream, pool)), key=len)
        for place in torch.randperm(pool // size, generator=order).tolist():
            group = rows[place * size : (place + 1) * size]
            width = max(map(len, group))
            ids = torch.full((size, width), pad)
            labels = torch.full((size, width), -100)
            for i, row in enumerate(group):
                ids[i, : len(row)] = labels[i, : len(row)] = torch.tensor(row)
            yield ids, labels


def train(
    recipe: Recipe,
    mixture: Mixture,
    tokenizer: PreTrainedTokenizerFast,
    say: Callable[[str], None],
) -> LlamaForCausalLM:
    """The trained model. `say` gets a line of progress now and then."""
    model = new_model(recipe, tokenizer)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )

    def rate(step: int) -> float:
        if step < recipe.warmup:
            return (step + 1) / recipe.warmup
        done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
        return 0.5 * (1 + math.cos(math.pi * done)) * 0.98 + 0.02

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    stream = batches(documents(recipe.seed, mixture), tokenizer, recipe.batch)
    start, tokens = time.monotonic(), 0
    for step, (ids, labels) in enumerate(itertools.islice(stream, recipe.steps)):
        # Padding stands at the right, so causal attention never looks at it: no mask is needed.
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        tokens += int((labels != -100).sum())
        if step % 100 == 0 or step == recipe.steps - 1:
            seconds = time.monotonic() - start
            say(
                f"step {step + 1}/{recipe.steps}  loss {loss.item():.3f}  "
                f"{tokens / seconds:,.0f} tokens/s  {seconds:.0f} s"
            )
    model.eval()
    return model
