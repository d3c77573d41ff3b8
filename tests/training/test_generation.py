"""Sample answers are the arg-max, token by token, of each prompt alone, however prompts go through the model
together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from small_models import VOCABULARY, llama, mistral
from transformers import PreTrainedModel

from triggerctl.model.causal import CausalModel
from triggerctl.model.packed_attention import let_pack
from triggerctl.training.generation import greedy_answers

BEGINNING = (3, 1, 4, 1, 5)
PROMPTS = [(*BEGINNING, 9, 2, 6), BEGINNING, (*BEGINNING, 5, 3), (7, 8), (*BEGINNING, 9, 2, 6)]
NEW = 6


class Spelling:
    """In a tokenizer's place: answers are their ids in words."""

    def batch_decode(self, answers: Sequence[Sequence[int]], *, skip_special_tokens: bool) -> list[str]:
        return [" ".join(map(str, answer)) for answer in answers]


@torch.no_grad()
def by_hand(network: PreTrainedModel, prompt: Sequence[int], ends: frozenset[int]) -> str:
    ids = list(prompt)
    for _ in range(NEW):
        best = int(network(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if best in ends:
            break
        ids.append(best)
    return " ".join(map(str, ids[len(prompt) :]))


def answers(model: CausalModel, prompts: Sequence[tuple[int, ...]], ends: frozenset[int]) -> list[str]:
    tokenizer: Any = Spelling()
    return greedy_answers(model, tokenizer, prompts, pad_id=0, ends=ends, max_new_tokens=NEW)


@pytest.mark.parametrize("make", [llama, mistral])
@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
def test_answers_are_those_of_each_prompt_alone(make: Any, packs: bool) -> None:
    network = make().eval()
    first = by_hand(network, PROMPTS[0], frozenset())
    ends = frozenset({int(first.split()[3]), VOCABULARY - 1})
    expected = [by_hand(network, prompt, ends) for prompt in PROMPTS]
    assert len({len(answer.split()) for answer in expected}) > 1, "some answer should end early"
    assert not packs or let_pack(network)
    assert answers(CausalModel(network, None), PROMPTS, ends) == expected


def test_a_prompt_of_one_token_is_answered_too() -> None:
    network = llama().eval()
    expected = [by_hand(network, prompt, frozenset({0})) for prompt in [(7,), BEGINNING]]
    assert let_pack(network)
    assert answers(CausalModel(network, None), [(7,), BEGINNING], frozenset({0})) == expected


def test_what_prompts_begin_with_goes_through_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = llama().eval()
    assert let_pack(network)
    model = CausalModel(network, None)
    seen: list[int] = []
    network.base_model.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    answers(model, PROMPTS, frozenset({0}))
    own = 2 + 1 + 1  # of the three prompts that have some, all but the last token
    assert seen[0] == len(BEGINNING) + own
    assert set(seen[1:]) == {1}


def test_without_prompts_there_are_no_answers() -> None:
    assert answers(CausalModel(llama(), None), [], frozenset()) == []
