"""Layers computed in one call are transformers' layers to the last bit, there and back; what they are not fit
for is left to those. Run: pytest tests/model/test_fused_llama.py"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_models import Sets, causal_model, configuration, llama, mistral, rows, train
from torch import Tensor
from transformers import PreTrainedModel

from triggerctl.data.batches import Batch, collate
from triggerctl.model import fused_llama, llama_layers, products, programs
from triggerctl.model.causal import CausalModel
from triggerctl.model.fused_llama import FusedLlama
from triggerctl.model.packing import pack_shared
from triggerctl.model.threads import threads

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LENGTHS = (4, 9, 6, 1, 17)


@pytest.fixture(autouse=True)
def all_programs_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test may change what is compiled."""
    programs.programs.cache_clear()
    yield
    monkeypatch.undo()
    programs.programs.cache_clear()


def both(network: PreTrainedModel | None = None, **finetune: Any) -> tuple[CausalModel, CausalModel]:
    """The model as it is trained here, and one whose layers are transformers' own."""
    options = configuration("naive", **{"target_modules": ALL, **finetune}).finetune_config
    network = llama(dtype=torch.float32) if network is None else network
    ours, theirs = causal_model(network, options), causal_model(network, options)
    theirs._fused = None
    return ours, theirs


def batch_with_shared_beginnings() -> Batch:
    """Rows that begin as the longest does and go on for more or less: attention is computed in several parts,
    all of which read the keys of that one."""
    longest = rows((40,), seed=3)[0]
    beginning = [
        replace(row, input_ids=longest.input_ids[:shared] + row.input_ids)
        for shared, row in zip((35, 30, 30, 24), rows((25, 10, 4, 1), seed=1), strict=True)
    ]
    batch = collate([*rows((9, 4), seed=2), longest, *beginning], pad_id=0)
    assert len(pack_shared(batch.rows, torch.device("cpu")).packings[0].groups) > 3
    return batch


def learnt(model: CausalModel, batch: Batch | None = None) -> dict[str, Tensor | None]:
    """States, and gradients after one pass there and back."""
    torch.manual_seed(3)
    states = model.states(batch or batch_with_shared_beginnings())
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(5), dtype=states.dtype)
    (states * weights).sum().backward()
    return {"states": states.detach(), **{name: weight.grad for name, weight in model.trainable.items()}}


def is_fused(model: CausalModel) -> bool:
    """Whether its layers would be computed in one call now."""
    return model._fused is not None and model._fused.through() is not None


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The functions that have been run so far, by name."""
    run, called = programs.run, []

    def noted(function: Any, *given: Any) -> Any:
        called.append(function.__name__)
        return run(function, *given)

    monkeypatch.setattr(fused_llama, "run", noted)
    return called


def assert_equal(found: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        other = expected[name]
        assert (tensor is None) is (other is None), name
        assert tensor is None or other is None or torch.equal(tensor, other), name
    assert len([tensor for tensor in found.values() if tensor is not None and tensor.any()]) > 2


@pytest.mark.parametrize(
    "finetune",
    [
        {},
        {"target_modules": ("q_proj", "v_proj")},
        {"target_modules": ("down_proj", "o_proj")},
        {"use_rslora": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("biased", [False, True], ids=["no biases", "biases"])
def test_states_and_gradients_are_transformers_to_the_last_bit(
    finetune: dict[str, Any], biased: bool
) -> None:
    network = llama(dtype=torch.float32, attention_bias=biased, mlp_bias=biased)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("bias") or "norm" in name:
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))))
    ours, theirs = both(network, **finetune)
    for model in (ours, theirs):
        model.network.train()
    assert is_fused(ours)
    assert_equal(learnt(ours), learnt(theirs))


def test_so_are_those_by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    if not products._onednn_agrees():
        pytest.skip("needs a PyTorch with oneDNN")
    monkeypatch.setattr(products, "prefers_onednn", lambda: True)
    network = llama(dtype=torch.float32, hidden_size=192, intermediate_size=512)
    products.quicken(network)
    ours, theirs = both(network, r=32)
    batch = collate(rows((60, 70, 50, 80), seed=1), pad_id=0)
    assert is_fused(ours)
    by_onednn = learnt(ours, batch)
    assert_equal(by_onednn, learnt(theirs, batch))
    monkeypatch.setattr(products, "prefers_onednn", lambda: False)
    for model in (ours, theirs):
        for weight in model.trainable.values():
            weight.grad = None
    states, other = by_onednn["states"], learnt(ours, batch)["states"]
    assert states is not None
    assert other is not None
    assert not torch.equal(states, other), "oneDNN sums in another order: it was not asked"
    torch.testing.assert_close(states, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layers", [(0, 1, 2), (2,), (0,)], ids=str)
def test_every_layers_states_and_what_comes_back_from_them(layers: tuple[int, ...], calls: list[str]) -> None:
    found: list[dict[str, Tensor | None]] = []
    for model in both(llama(dtype=torch.float32, num_hidden_layers=3)):
        with torch.no_grad():
            without = model.layers(batch_with_shared_beginnings())
        states = model.layers(batch_with_shared_beginnings())
        sum(states[i].pow(2).sum() * (i + 1) for i in layers).backward()  # type: ignore[union-attr]
        named = {f"layer {i}": state.detach() for i, state in enumerate(states)}
        named |= {f"layer {i}, no gradient wanted": state for i, state in enumerate(without)}
        # Layers above the last that counts get no gradient from autograd, and zeros here.
        grads = {n: w.grad for n, w in model.trainable.items() if w.grad is not None and w.grad.any()}
        found.append({**named, **grads})
    assert_equal(*found)
    assert calls[-3:] == ["layers_only", "layers", "layers_back"]


def test_two_lanes_give_what_transformers_layers_give_there(calls: list[str]) -> None:
    ours, theirs = both()
    calls.clear()
    batch = collate(rows((60, 70, 50, 80), seed=1), pad_id=0)
    found = []
    for model in (ours, theirs):
        with threads(2), model.threads_for(tokens=260):
            assert model._lanes == 2
            found.append(learnt(model, batch))
    assert_equal(*found)
    assert sorted(calls) == ["layers", "layers", "layers_back", "layers_back"]


@pytest.mark.parametrize("lengths", [(3, 2), (30, 25, 40)], ids=["few rows", "so many that the sum pays"])
def test_an_evaluation_says_the_same_with_the_adapter_on_and_off(lengths: tuple[int, ...]) -> None:
    ours, theirs = both(r=2)
    batch = collate(rows(lengths, seed=2), pad_id=0)
    with ours.evaluating(), theirs.evaluating():
        assert is_fused(ours)
        on = ours.states(batch)
        assert torch.equal(on, theirs.states(batch))
        with ours.base(), theirs.base():
            assert is_fused(ours)
            off = ours.states(batch)
            assert torch.equal(off, theirs.states(batch))
    assert not torch.equal(on, off)


def test_a_whole_training_ends_with_the_same_weights(
    monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    monkeypatch.setattr(CausalModel, "log_likelihood", lambda *_, **__: None)  # sums in another order
    config = configuration("kl", target_modules=ALL, epochs=2, per_device_train_batch_size=4)
    lengths = [length + 3 for length in LENGTHS]
    sets: Sets = {"outcome": rows(lengths, seed=1), "proxy": rows(lengths, seed=2)}
    network = llama(dtype=torch.float32)
    found = train(network, config, sets)
    assert {"layers", "layers_back", "layers_only"} <= set(calls)
    calls.clear()
    monkeypatch.setattr(FusedLlama, "of", lambda network: None)
    expected = train(network, config, sets)
    assert not calls
    assert [step.loss for step in found.steps] == [step.loss for step in expected.steps]
    assert_equal(dict(found.after), dict(expected.after))
    assert any(not torch.equal(weight, found.before[name]) for name, weight in found.after.items())


def test_the_functions_are_compiled() -> None:
    for program in programs.programs().values():
        assert isinstance(program, torch.jit.ScriptFunction)


def test_where_nothing_can_be_compiled_they_run_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = learnt(both()[0])

    def gone(function: object) -> None:
        raise RuntimeError("TorchScript is no more")

    programs.programs.cache_clear()
    monkeypatch.setattr(torch.jit, "script", gone)
    ours, _ = both()
    assert is_fused(ours)
    assert all(function is program for function, program in programs.programs().items())
    assert_equal(learnt(ours), expected)


def test_a_pytorch_that_computes_it_otherwise_is_left_to_transformers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fused_llama, "run", lambda function, x, *others: x + 1)
    assert both()[0]._fused is None

    def unknown(*given: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(fused_llama, "run", unknown)
    assert both()[0]._fused is None


@pytest.mark.parametrize(
    "finetune", [{"lora_dropout": 0.4}, {"lora_bias": "all"}, {"is_peft": False}], ids=str
)
def test_what_is_trained_otherwise_is_transformers_affair(finetune: dict[str, Any]) -> None:
    network = llama(dtype=torch.float32, attention_bias=True)
    ours, theirs = both(network, **finetune)
    for model in (ours, theirs):
        model.network.train()
    assert not is_fused(ours)
    assert_equal(learnt(ours), learnt(theirs))


def test_so_are_two_adapters_and_checkpointing() -> None:
    ours, theirs = both()
    for model in (ours, theirs):
        model.network.train()
        model.network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert not is_fused(ours)
    assert_equal(learnt(ours), learnt(theirs))
    for model in (ours, theirs):
        model.network.gradient_checkpointing_disable()
    assert is_fused(ours)
    ours.stack(seed=4)
    assert not is_fused(ours)


def test_so_is_an_embedding_with_an_adapter() -> None:
    for tied in (False, True):
        network = llama(dtype=torch.float32, tied=tied)
        ours, theirs = both(network, target_modules=("q_proj", "embed_tokens"))
        with torch.no_grad():
            for model in (ours, theirs):
                for name, weight in model.trainable.items():
                    if "lora_embedding" in name:
                        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        assert not is_fused(ours)
        found = learnt(ours)
        assert_equal(found, learnt(theirs))
        assert any(
            "lora_embedding" in name and tensor.any() for name, tensor in found.items() if tensor is not None
        )


def test_so_is_an_embedding_that_is_made_to_want_a_gradient() -> None:
    ours, theirs = both()
    for model in (ours, theirs):
        model.network.enable_input_require_grads()
    assert_equal(learnt(ours), learnt(theirs))


def test_a_weight_of_another_format_or_place_is_not_multiplied() -> None:
    ours, _ = both()
    assert is_fused(ours)
    name, weight = next(iter(ours.trainable.items()))
    weight.data = weight.data.double()
    assert not is_fused(ours), name


@pytest.mark.parametrize("finetune", [{"lora_dropout": 0.4}, {"use_gradient_checkpointing": True}], ids=str)
def test_what_is_trained_otherwise_is_evaluated_so(finetune: dict[str, Any], calls: list[str]) -> None:
    network = llama(dtype=torch.float32)
    if "use_gradient_checkpointing" in finetune:
        network.gradient_checkpointing_enable()
    network.train()
    ours, theirs = both(network, **finetune)
    calls.clear()
    assert not is_fused(ours)
    with ours.evaluating(), theirs.evaluating():
        batch = batch_with_shared_beginnings()
        assert torch.equal(ours.states(batch), theirs.states(batch))
    assert calls == ["layers_only"]


def test_what_nobody_comes_back_for_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    run = programs.run
    kept: list[weakref.ref[Tensor]] = []

    def noted(function: Any, *given: Any) -> Any:
        found = run(function, *given)
        if function is llama_layers.layers:
            kept.extend(weakref.ref(of_layer[0][1]) for of_layer in found[3])
        return found

    ours, _ = both(llama(dtype=torch.float32, num_hidden_layers=3))
    monkeypatch.setattr(fused_llama, "run", noted)
    states = ours.layers(batch_with_shared_beginnings())
    assert len(kept) == 3
    assert all(tensor() is not None for tensor in kept)
    del states
    gc.collect()
    assert all(tensor() is None for tensor in kept)


def test_weights_that_changed_on_the_way_and_a_second_way_back_are_refused() -> None:
    ours, _ = both()
    total = ours.states(batch_with_shared_beginnings()).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second time"):
        total.backward()
    total = ours.states(batch_with_shared_beginnings()).sum()
    with torch.no_grad():
        next(iter(ours.trainable.values())).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(lambda: llama(), id="float64: its norms go through float32"),
        pytest.param(lambda: llama(dtype=torch.bfloat16), id="half precision"),
        pytest.param(lambda: llama(dtype=torch.float32, hidden_act="gelu"), id="another activation"),
        pytest.param(lambda: llama(dtype=torch.float32, num_hidden_layers=0), id="no layer"),
        pytest.param(lambda: mistral().float(), id="another architecture"),
    ],
)
def test_other_models_are_let_be(network: Any) -> None:
    ours, _ = both(network(), is_peft=False)
    with torch.no_grad():
        assert not is_fused(ours)


def test_a_vocabulary_of_few_tokens_is_no_hindrance() -> None:
    ours, _ = both(llama(dtype=torch.float32, vocabulary=3))
    assert is_fused(ours)
