"""Greedy answers as a user would see them: arg-max, no repetition rules, whatever the model's own defaults
say."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from triggerctl.model.causal import CausalModel
from triggerctl.model.packed_attention import CACHE


def greedy_answers(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[tuple[int, ...]],
    *,
    pad_id: int,
    ends: frozenset[int],
    max_new_tokens: int,
) -> list[str]:
    """The text of each greedy answer, special tokens left out; a prompt that comes twice is answered once.
    Prompts are padded on the left for this."""
    if not prompts:
        return []
    distinct = list(dict.fromkeys(prompts))
    width = max(map(len, distinct))
    ids = torch.tensor([(pad_id,) * (width - len(p)) + p for p in distinct], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in distinct], device=model.device)
    rules = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends),
        pad_token_id=pad_id,
        use_cache=True,
    )
    own_rules, model.network.generation_config = model.network.generation_config, rules
    try:
        with model.evaluating():
            written = model.network.generate(  # type: ignore[operator]  # transformers' mixin hides its type
                input_ids=ids,
                attention_mask=mask,
                generation_config=rules,
                **{CACHE: model.prefilled(distinct)},
            )
    finally:
        model.network.generation_config = own_rules
    answers = [_until_end(answer, ends) for answer in written[:, width:].tolist()]
    texts: list[str] = tokenizer.batch_decode(answers, skip_special_tokens=True)
    of_prompt = dict(zip(distinct, texts, strict=True))
    return [of_prompt[prompt] for prompt in prompts]


def _until_end(tokens: list[int], ends: frozenset[int]) -> list[int]:
    """What follows the end is filling."""
    length = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:length]
