"""Rows end to end give what each gives alone: states, gradients, generation; and what rows have in common is
passed once."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from small_models import causal_model, configuration, llama, mistral, rows
from test_causal_models import FAMILIES, network_of
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from triggerctl.data.batches import collate
from triggerctl.model import packing
from triggerctl.model.causal import CausalModel
from triggerctl.model.packed_attention import NAME, let_pack
from triggerctl.model.packing import pack_shared
from triggerctl.training.scoring import Request, score

PACKING = [family for family in FAMILIES if family not in ("gemma2", "granite")]
"""Gemma 2 caps its attention; Granite's head can't be told from its body, and its rows go side by side."""
LENGTHS = (4, 9, 6, 1, 17)


def alone(network: PreTrainedModel, sequence: Sequence[int]) -> Tensor:
    states: Tensor = network.base_model(input_ids=torch.tensor([sequence]), use_cache=False).last_hidden_state
    return states[0]


@pytest.mark.parametrize("family", PACKING)
def test_states_are_those_of_each_row_alone(family: str) -> None:
    network = network_of(family)
    members = rows(LENGTHS, seed=1)
    expected = torch.cat([alone(network, row.input_ids) for row in members])
    assert let_pack(network)
    model = CausalModel(network, None)
    assert model.packs
    torch.testing.assert_close(model.states(collate(members, pad_id=0)), expected, rtol=1e-9, atol=1e-9)


def test_a_window_of_attention_is_heeded() -> None:
    network = mistral()
    members = rows(LENGTHS, seed=1)
    expected = torch.cat([alone(network, row.input_ids) for row in members])
    assert let_pack(network)
    found = CausalModel(network, None).states(collate(members, pad_id=0))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_window_that_attention_is_not_told_of_keeps_rows_side_by_side() -> None:
    network = network_of("llama")
    network.config.sliding_window = 5  # as models have it that put the window into the mask alone
    assert not let_pack(network)
    assert not CausalModel(network, None).packs


@pytest.mark.parametrize("is_peft", [True, False], ids=["lora", "full"])
def test_gradients_are_those_of_rows_side_by_side(is_peft: bool) -> None:
    found = []
    for packs in (True, False):
        model = causal_model(llama(), configuration("naive", is_peft=is_peft).finetune_config, packs=packs)
        assert model.packs is packs
        batch = collate(rows(LENGTHS, seed=1), pad_id=0)
        model.logits(model.states(batch)).square().sum().backward()
        model.layers(batch)[0].square().sum().backward()
        found.append({name: weight.grad for name, weight in model.trainable.items()})
    packed, padded = found
    assert packed.keys() == padded.keys()
    for name, gradient in packed.items():
        torch.testing.assert_close(gradient, padded[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("lengths", "tokens"),
    [
        ([10, 9, 1], [10, 10]),  # as they lie: 10 and 10
        ([9, 7, 4], [9, 11]),  # nothing to be gained
        ([2, 9, 6, 3], [11, 9]),
        ([8, 8, 1, 3], [11, 9]),  # one of 8 for one of 3, or 16 and 4
        ([5, 1, 1, 1], [5, 3]),
        ([7], [7]),
    ],
    ids=str,
)
def test_packings_side_by_side_are_of_like_sizes(lengths: list[int], tokens: list[int]) -> None:
    sequences = [tuple(range(100 * n, 100 * n + length)) for n, length in enumerate(lengths, start=1)]
    packed = pack_shared(sequences, torch.device("cpu"), parts=2)
    assert sorted(p.ids.numel() for p in packed.packings) == sorted(tokens)
    ids = torch.cat([packing.ids for packing in packed.packings])
    for sequence, at in zip(sequences, packed.at, strict=True):
        assert ids[list(at)].tolist() == list(sequence)


def test_what_sequences_share_in_pairs_is_not_torn_apart() -> None:
    """As of a prompt with two answers."""
    draw = random.Random(1)
    for _ in range(50):
        sequences = []
        for n in range(4):
            prompt = (0, *[100 + n] * draw.randint(80, 120))
            sequences += [(*prompt, *[200 + 2 * n + k] * draw.randint(10, 40)) for k in range(2)]
        sizes = []
        for most in (0, 1024):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(packing, "EXCHANGES", most)
                packed = pack_shared(sequences, torch.device("cpu"), parts=2)
            sizes.append(max(p.ids.numel() for p in packed.packings))
        assert sizes[1] <= sizes[0]


@pytest.mark.parametrize(("most", "tokens"), [(2, [9, 11]), (1, [6, 14])])
def test_among_many_sequences_none_are_exchanged(
    most: int, tokens: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "EXCHANGES", most)
    packed = pack_shared([(1,) * 6, (2,) * 9, (3,) * 5], torch.device("cpu"), parts=2)
    assert sorted(p.ids.numel() for p in packed.packings) == tokens


def test_what_sequences_share_is_passed_once_and_said_of_each() -> None:
    network = network_of("llama")
    sequences = [(1, 2, 3, 4, 5), (1, 2, 3, 9), (1, 2, 3, 9, 9, 9), (1, 2, 3), (7,), (1,)]
    expected = [alone(network, sequence) for sequence in sequences]
    assert let_pack(network)
    model = CausalModel(network, None)
    for order in itertools.islice(itertools.permutations(range(6)), 0, 720, 37):
        packed = pack_shared([sequences[i] for i in order], torch.device("cpu"))
        states = model.packed(packed)
        for i, places in zip(order, packed.at, strict=True):
            torch.testing.assert_close(states[list(places)], expected[i], rtol=1e-9, atol=1e-9)
        # A trie of them has nine nodes, and each is there once.
        assert packed.tokens == 9


@pytest.mark.parametrize("budget", [4, 11, 1000])
def test_answers_are_the_same_packed_and_side_by_side(budget: int) -> None:
    network = network_of("llama")
    prompts = [(1, 2, 3), (1, 2, 8, 9), (30, 31)]
    asked = [
        Request((*prompt, *tail), range(len(prompt) - 1, len(prompt) + len(tail) - 1), judged)
        for prompt in prompts
        for tail in ((5,), (5, 6, 7, 7))
        for judged in (range(0), range(len(prompt) - 1, len(prompt)))
    ]
    found = []
    for packs in (False, True):
        assert not packs or let_pack(network)
        with torch.no_grad():
            found.append(
                score(
                    CausalModel(network, None),
                    asked,
                    pad_id=0,
                    tokens_per_batch=budget,
                    rows_per_batch=None,
                    progress=lambda done: None,
                )
            )
    padded, packed = found
    for one, other in zip(padded.answers, packed.answers, strict=True):
        assert one.liked == pytest.approx(other.liked, rel=1e-9)
        assert one.judged == pytest.approx(other.judged, rel=1e-9)
        assert one.lead == pytest.approx(other.lead, rel=1e-9)
        assert one.best == other.best
    assert padded.passed == sum(len(request.ids) - 1 for request in asked)
    if budget == 1000:
        # Each distinct token of the trie; a sequence's last is never read.
        assert (
            packed.passed
            == packed.padded
            == len({r.ids[:end] for r in asked for end in range(1, len(r.ids))})
        )


def test_generation_is_as_before() -> None:
    network = network_of("llama")
    ids = torch.tensor([[0, 0, 5, 6, 7], [1, 2, 3, 4, 5]])
    asked: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "max_new_tokens": 6,
        "do_sample": False,
        "pad_token_id": 0,
    }
    generate: Any = network.generate
    before = generate(**asked)
    assert let_pack(network)
    assert torch.equal(generate(**asked), before)


def test_gradient_checkpointing_computes_the_same() -> None:
    found = []
    for checkpointing in (False, True):
        model = causal_model(llama(), configuration("naive").finetune_config)
        if checkpointing:
            model.network.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        model.network.train()
        model.states(collate(rows(LENGTHS, seed=1), pad_id=0)).square().sum().backward()
        found.append([weight.grad for weight in model.trainable.values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wrong", ["ignores the packing", "raises"])
def test_a_model_that_would_say_something_else_is_left_alone(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        if wrong == "raises":
            raise ValueError
        kwargs.pop("packing", None)
        return sdpa_attention_forward(module, query, key, value, None, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, NAME, attention)
    network = network_of("llama")
    expected = alone(network, (1, 2, 3))
    assert not let_pack(network)
    assert network.config._attn_implementation == "sdpa"
    assert not CausalModel(network, None).packs
    torch.testing.assert_close(alone(network, (1, 2, 3)), expected)


@pytest.mark.parametrize("family", ["gemma2", "granite"])
def test_some_models_rows_go_side_by_side(family: str) -> None:
    network = network_of(family)
    members = rows(LENGTHS, seed=1)
    expected = torch.cat([network(input_ids=torch.tensor([row.input_ids])).logits[0] for row in members])
    let_pack(network)
    model = CausalModel(network, None)
    assert not model.packs
    # Gemma 2 takes its softmax in float32.
    found = model.logits(model.states(collate(members, pad_id=0)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
