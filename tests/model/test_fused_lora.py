"""The fused layer is peft's layer: the same outputs and gradients, and the base weights untouched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft.tuners.lora import Linear
from small_models import causal_model, configuration, llama
from torch import Tensor, nn

from triggerctl.model.causal import CausalModel
from triggerctl.model.fused_lora import FusedLinear

TARGETS = ("q_proj", "v_proj", "down_proj", "gate_proj")


def models(**finetune: Any) -> tuple[CausalModel, CausalModel]:
    """One as trained here, and one with peft's own layers."""
    options = configuration("naive", target_modules=TARGETS, **finetune).finetune_config
    ours, theirs = causal_model(llama(), options), causal_model(llama(), options)
    for module in theirs.network.modules():
        if isinstance(module, FusedLinear):
            object.__setattr__(module, "__class__", Linear)
    return ours, theirs


def fused(model: CausalModel) -> list[FusedLinear]:
    return [module for module in model.network.modules() if isinstance(module, FusedLinear)]


def said(model: CausalModel, tokens: int) -> Tensor:
    return model.hidden(torch.arange(tokens).remainder(53).unsqueeze(0))


def trained(model: CausalModel, tokens: int) -> dict[str, Tensor | None]:
    torch.manual_seed(3)
    said(model, tokens).square().sum().backward()
    return {name: weight.grad for name, weight in model.trainable.items()}


@pytest.mark.parametrize(
    "finetune",
    [{}, {"lora_dropout": 0.4}, {"lora_bias": "lora_only"}, {"lora_bias": "all"}, {"use_rslora": True}],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_peft(finetune: dict[str, Any]) -> None:
    ours, theirs = models(**finetune)
    assert len(fused(ours)) == 2 * len(TARGETS)
    assert not fused(theirs)
    for model in (ours, theirs):
        model.network.train()
    found, expected = trained(ours, 40), trained(theirs, 40)
    assert found.keys() == expected.keys()
    assert all(gradient is not None for gradient in found.values())
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("tokens", [1, 5, 200], ids=["one", "few", "so many that the sum pays"])
def test_an_evaluation_says_the_same_and_changes_no_weight(tokens: int) -> None:
    ours, theirs = models()
    before = {name: weight.clone() for name, weight in ours.network.state_dict().items()}
    with ours.evaluating(), theirs.evaluating():
        torch.testing.assert_close(said(ours, tokens), said(theirs, tokens), rtol=1e-10, atol=1e-12)
    for name, weight in ours.network.state_dict().items():
        assert torch.equal(weight, before[name])


def test_with_the_adapter_off_or_two_of_them_it_is_pefts_affair() -> None:
    ours, theirs = models()
    with torch.no_grad(), ours.base(), theirs.base():
        assert torch.equal(said(ours, 30), said(theirs, 30))
    for model in (ours, theirs):
        model.stack(seed=4)
    with torch.no_grad():
        torch.testing.assert_close(said(ours, 30), said(theirs, 30), rtol=1e-10, atol=1e-12)
    assert trained(ours, 30).keys() == trained(theirs, 30).keys()


def test_an_adapter_that_is_zero_adds_nothing_to_the_last_bit() -> None:
    options = configuration("naive", target_modules=TARGETS).finetune_config
    model = causal_model(llama(dtype=torch.float32), options, moved=False)
    with model.evaluating():
        on = said(model, 200)
        with model.base():
            assert torch.equal(on, said(model, 200))


def test_other_layers_stay_pefts() -> None:
    options = configuration("naive", target_modules=("q_proj",)).finetune_config
    network = llama()
    network.model.layers[0].self_attn.q_proj.__class__ = type("Special", (nn.Linear,), {})
    assert len(fused(causal_model(network, options))) == 1
