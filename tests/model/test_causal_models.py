"""Decoder and head apart give the model's own logits, for every family; and what θ₀ is.

pytest tests/model/test_causal_models.py"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_models import causal_model, configuration, llama, rows
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from triggerctl.data.batches import collate
from triggerctl.errors import InputError
from triggerctl.model.causal import CausalModel
from triggerctl.training.reference import BaseReference

SHAPE: dict[str, Any] = {
    "vocab_size": 53,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}


def gemma() -> PreTrainedModel:
    caps: dict[str, Any] = {"final_logit_softcapping": 1.5, "attn_logit_softcapping": 5.0}
    config = Gemma2Config(**SHAPE, **caps, num_key_value_heads=2, head_dim=8)
    return Gemma2ForCausalLM(config)


def gpt2() -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=53, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3,
        bos_token_id=None, eos_token_id=None, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def qwen() -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=2, tie_word_embeddings=True))


def neox() -> PreTrainedModel:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE))


def granite() -> PreTrainedModel:
    """It divides its logits by a number of its own."""
    return GraniteForCausalLM(GraniteConfig(**SHAPE, num_key_value_heads=2, logits_scaling=4.0))


FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": llama,
    "gemma2": gemma,
    "gpt2": gpt2,
    "qwen2": qwen,
    "gpt_neox": neox,
    "granite": granite,
}


def network_of(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    network: PreTrainedModel = FAMILIES[family]()
    for weight in network.parameters():
        weight.data = weight.data.double()
    network.eval()
    return network


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_models_own_at_every_token(family: str) -> None:
    network = network_of(family)
    model = CausalModel(network, None)
    batch = collate(rows((4, 9, 6), seed=1), pad_id=0)
    with torch.no_grad():
        found = model.logits(model.hidden(batch.input_ids))
        expected = network(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    attended = batch.attention_mask.bool()
    torch.testing.assert_close(found[attended], expected[attended], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("family", "splits"), [("llama", True), ("gemma2", True), ("gpt2", True), ("granite", False)]
)
def test_the_head_stands_alone_only_where_it_gives_the_same(family: str, splits: bool) -> None:
    assert CausalModel(network_of(family), None).splits is splits


def test_capped_logits_stay_below_their_cap() -> None:
    model = CausalModel(network_of("gemma2"), None)
    with torch.no_grad():
        found = model.logits(model.hidden(torch.arange(20).unsqueeze(0)))
    assert float(found.abs().max()) <= 1.5
    assert float(found.abs().max()) > 1.0


@pytest.mark.parametrize("family", ["llama", "granite"])
def test_with_the_adapter_off_the_model_is_the_checkpoint(family: str) -> None:
    network = network_of(family)
    model = causal_model(
        network, configuration("naive", target_modules=("q_proj", "down_proj")).finetune_config
    )
    ids = torch.arange(12).unsqueeze(0)
    with torch.no_grad():
        expected = network(input_ids=ids).logits
        with model.base():
            off = model.logits(model.hidden(ids))
        on = model.logits(model.hidden(ids))
    torch.testing.assert_close(off, expected, rtol=0, atol=1e-12)
    assert not torch.allclose(on, expected, atol=1e-3)


@pytest.mark.parametrize("is_peft", [True, False], ids=["lora", "full"])
def test_the_reference_is_the_checkpoint_whatever_happens_afterwards(is_peft: bool) -> None:
    """Head, embeddings, body and adapter are all changed after it was made."""
    network = llama(tied=True)
    model = causal_model(network, configuration("kl", is_peft=is_peft).finetune_config)
    members = rows((5, 8, 3), seed=2)
    reference = BaseReference(
        model, members, needs=frozenset({"logits"}), pad_id=0, progress=lambda done, total: None
    )
    with torch.no_grad():
        for weight in model.trainable.values():
            weight.add_(0.5)
    found = reference.head(reference.final_states([2, 0]))
    with torch.no_grad():
        expected = [network(input_ids=torch.tensor([members[i].input_ids])).logits[0] for i in (2, 0)]
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-9, atol=1e-9)
    assert not found.requires_grad


def test_a_reference_that_could_not_be_kept_is_refused() -> None:
    network = network_of("granite").requires_grad_(True)
    with pytest.raises(InputError, match="is_peft"):
        BaseReference(
            CausalModel(network, None),
            rows((4,), seed=1),
            needs=frozenset({"logits"}),
            pad_id=0,
            progress=lambda done, total: None,
        )


def test_evaluating_switches_dropout_and_gradients_off_and_back() -> None:
    model = causal_model(llama(), configuration("naive", lora_dropout=0.5).finetune_config)
    model.network.train()
    ids = torch.arange(9).unsqueeze(0)
    with model.evaluating():
        one, two = model.hidden(ids), model.hidden(ids)
        assert not one.requires_grad
    assert torch.equal(one, two)
    assert model.network.training
    assert not torch.equal(model.hidden(ids), model.hidden(ids))


def test_wrapping_a_model_leaves_it_as_it_was() -> None:
    network = network_of("llama").train()
    before = copy.deepcopy(network.state_dict())
    state = torch.get_rng_state()
    CausalModel(network, None)
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
