"""A sum of log-probabilities whose gradient is taken on the way is what autograd makes of the model's own
logits. Run: pytest tests/model/test_likelihood.py"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_models import causal_model, configuration, exact_norms, llama, mistral, rows, train
from torch import Tensor, nn
from transformers import PreTrainedModel

from triggerctl.data.batches import Batch, collate
from triggerctl.model import (
    causal,
    fused_llama,
    likelihood,
    llama_layers,
    positions,
    products,
    programs,
    threads,
)
from triggerctl.model.causal import CausalModel
from triggerctl.model.layer_steps import SHORT, over
from triggerctl.model.likelihood import KnownSum
from triggerctl.model.packing import pack
from triggerctl.model.positions import at_once
from triggerctl.model.products import round_number
from triggerctl.strategies.base import cross_entropy, log_probabilities
from triggerctl.training.forward import ModelForward

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LENGTHS = (4, 9, 6, 1, 17, 30)


def exact(**shape: Any) -> PreTrainedModel:
    """A Llama in float64 throughout."""
    return exact_norms(llama(**shape))


def fresh(network: PreTrainedModel, **finetune: Any) -> CausalModel:
    return causal_model(
        network, configuration("naive", **{"target_modules": ALL, **finetune}).finetune_config
    )


def batch_with_twins() -> Batch:
    """Rows of many lengths, of which some begin alike and one stands there twice."""
    first, second, *others = rows(LENGTHS, seed=1)
    longest = others[-1]
    shared = replace(second, input_ids=longest.input_ids[:20] + second.input_ids, loss_start=5)
    return collate([first, second, *others, shared, longest], pad_id=0)


def make_lanes_of_few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (threads, causal):
        monkeypatch.setattr(module, "WORTH_A_LANE", 4)


def by_autograd(model: CausalModel, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    """From the logits of every row by itself."""
    total = torch.zeros((), dtype=torch.float64)
    for number, ids in enumerate(batch.rows):
        targets = batch.loss_mask[number, : len(ids)].nonzero().squeeze(1)
        logits = model.network(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        total = total + log_probabilities(logits[targets - 1], torch.tensor(ids)[targets]).sum()
    total.backward()
    return float(total), taken(model)


def taken(model: CausalModel) -> dict[str, Tensor]:
    """The gradients that stand in the weights, and no longer do."""
    found = {}
    for name, weight in model.trainable.items():
        assert weight.grad is not None, name
        found[name], weight.grad = weight.grad, None
    return found


def asked(model: CausalModel, batch: Batch, *, times: float = 1.0) -> KnownSum | None:
    ready = model.ready(batch)
    return None if ready is None else model.log_likelihood(ready, at_once=at_once(model), times=times)


def known(model: CausalModel, batch: Batch, *, times: float = 1.0) -> KnownSum:
    found = asked(model, batch, times=times)
    assert found is not None
    return found


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], *, rtol: float = 1e-11) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(tensor, expected[name], rtol=rtol, atol=rtol * scale, msg=name)
        assert tensor.is_contiguous()


def assert_gives(model: CausalModel, found: KnownSum, value: float, gradients: dict[str, Tensor]) -> None:
    """Once gone back from, as it must be."""
    found.value.backward()
    found.give_back()
    assert float(found.value) == pytest.approx(value, rel=1e-12)
    assert_same(taken(model), gradients)


FINETUNES = [{}, {"target_modules": ("q_proj", "down_proj")}, {"use_rslora": True}]
SHAPES = [{}, {"tied": True}, {"attention_bias": True, "mlp_bias": True}, {"num_key_value_heads": 4}]


@pytest.mark.parametrize("finetune", FINETUNES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("at_once", [1000, 7, 1], ids=lambda n: f"{n} at once")
def test_value_and_gradients_are_autograds(
    shape: dict[str, Any], finetune: dict[str, Any], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "POSITIONS_AT_ONCE", at_once)
    model, batch = fresh(exact(**shape), **finetune), batch_with_twins()
    expected, gradients = by_autograd(model, batch)
    found = known(model, batch)
    assert all(weight.grad is None for weight in model.trainable.values())
    (-3 * found.value).backward()
    found.give_back()
    assert float(found.value) == pytest.approx(expected, rel=1e-12)
    assert_same(taken(model), {name: -3 * gradient for name, gradient in gradients.items()})


@pytest.mark.parametrize("heads", [2, 4])
def test_so_are_those_of_long_rows(heads: int) -> None:
    model = fresh(exact(num_key_value_heads=heads))
    batch = collate(rows((SHORT + 6, 9, SHORT + 30, SHORT, 30), seed=1), pad_id=0)
    expected, gradients = by_autograd(model, batch)
    found = known(model, batch)
    assert_gives(model, found, expected, gradients)


@pytest.mark.parametrize(
    ("heads", "lengths", "expected"),
    [(4, (SHORT, 6), True), (4, (SHORT + 1, 9), False), (2, (9,), False)],
    ids=["short rows", "a long one", "fewer keys than queries"],
)
def test_attention_goes_head_after_head_where_rows_are_short_and_keys_have_all_heads(
    heads: int, lengths: tuple[int, ...], expected: bool
) -> None:
    packing = pack([range(1, 1 + n) for n in lengths], torch.device("cpu")).packings[0]
    fused = fresh(exact(num_key_value_heads=heads))._fused
    assert fused is not None
    turns = fused.turns(packing, torch.zeros(1, dtype=torch.float64))
    assert over(fused_llama._laid(packing), turns).by_head is expected


@contextlib.contextmanager
def in_training(model: CausalModel, *, lanes: int = 1) -> Iterator[None]:
    with threads.threads(lanes), model.threads_for(4096), model.layers_stay():
        yield


def wholes_of(model: CausalModel) -> list[Tensor | None]:
    """What is multiplied by instead of by every matrix and its adapter's."""
    assert model._fused is not None
    known = model._fused._known
    assert known is not None
    assert known.wholes is not None
    return known.wholes()


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("finetune", FINETUNES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_by_sums_of_matrices_that_are_made_beforehand_they_are_the_same(
    shape: dict[str, Any], finetune: dict[str, Any], lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_lanes_of_few_tokens(monkeypatch)
    model, batch = fresh(exact(**shape), **finetune), batch_with_twins()
    expected, gradients = by_autograd(model, batch)
    with in_training(model, lanes=lanes):
        found = known(model, batch)
        made = [whole is not None for whole in wholes_of(model)]
    found.value.backward()
    found.give_back()
    biased = "attention_bias" in shape
    some = {"query_key_value", "down"} if "target_modules" in finetune else set(llama_layers.Layer._fields)
    adapted = ["query_key_value" in some, "output" in some, "gate_up" in some, "down" in some]
    assert made == 2 * [adapter and not biased for adapter in adapted]
    assert float(found.value) == pytest.approx(expected, rel=1e-12)
    assert_same(taken(model), gradients)


def test_matrices_whose_sums_would_take_longer_than_they_save_are_multiplied_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, batch = fresh(exact()), batch_with_twins()
    with model.threads_for(4), model.layers_stay():
        known(model, batch)
        assert wholes_of(model) == [None] * 8
    monkeypatch.setattr(fused_llama, "WHOLE_AT_MOST", 100)  # numbers: a larger model's would fill memory
    with in_training(model):
        known(model, batch)
        assert wholes_of(model) == []


@pytest.mark.parametrize("lanes", [1, 2])
def test_weights_that_have_moved_are_those_that_count(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    make_lanes_of_few_tokens(monkeypatch)
    model, batch = fresh(exact()), batch_with_twins()
    with in_training(model, lanes=lanes):
        for _ in range(3):
            found = known(model, batch)
            found.value.backward()
            found.give_back()
            expected, _ = by_autograd(model, batch)
            assert float(found.value) == pytest.approx(expected, rel=1e-12)
            with torch.no_grad():
                for weight in model.trainable.values():
                    weight.mul_(1.1)
            model.weights_moved()


def test_what_no_update_has_asked_for_is_not_made_for_the_next() -> None:
    model, batch = fresh(exact()), batch_with_twins()
    assert model._fused is not None
    with in_training(model):
        for asked in (False, True, False):
            if asked:
                known(model, batch)
            model.weights_moved()
            assert model._fused._known is not None
            assert (model._fused._known.wholes is not None) is asked


def test_without_its_adapter_and_in_evaluation_it_is_looked_at_anew() -> None:
    model, batch = fresh(exact()), batch_with_twins()
    with model.base():
        base = float(known(model, batch).value)
    states = model.states(batch)
    with in_training(model):
        trained = float(known(model, batch).value)
        with model.base():
            assert float(known(model, batch).value) == base
        with model.evaluating():
            torch.testing.assert_close(model.states(batch), states)
        assert float(known(model, batch).value) == trained
    assert trained != pytest.approx(base)


@pytest.mark.parametrize("filled", [False, True], ids=["as they are", "filled up"])
@pytest.mark.parametrize("lanes", [2, 3])
def test_lanes_meet_in_the_same_sum(lanes: int, filled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    make_lanes_of_few_tokens(monkeypatch)
    model, batch = fresh(exact()), batch_with_twins()
    expected, gradients = by_autograd(model, batch)
    if filled:
        model.rounded = lambda tokens: round_number(tokens + 1)
    packed: list[int] = []
    pack = model._pack

    def counting(*given: Any, **options: Any) -> Any:
        found = pack(*given, **options)
        packed.append(len(found.packings))
        return found

    monkeypatch.setattr(model, "_pack", counting)
    with threads.threads(lanes), model.threads_for(4 * lanes):
        found = known(model, batch)
    assert packed == [lanes]
    assert (model.filler > 0) == filled
    assert_gives(model, found, expected, gradients)


def test_no_lane_prepares_for_a_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread has a setting of its own; with gradients on there would be a graph that nobody walks."""
    make_lanes_of_few_tokens(monkeypatch)
    run, enabled = programs.run, []

    def noted(function: Any, *given: Any) -> Any:
        enabled.append(torch.is_grad_enabled())
        return run(function, *given)

    model = fresh(exact())
    monkeypatch.setattr(fused_llama, "run", noted)
    with threads.threads(2), model.threads_for(8):
        known(model, batch_with_twins())
    assert enabled == [False, False]


@pytest.mark.parametrize("trains", [False, True], ids=["one by one", "made whole"])
def test_by_onednn_they_are_the_same_within_rounding(trains: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not products._onednn_agrees():
        pytest.skip("needs a PyTorch with oneDNN")
    network = llama(dtype=torch.float32, hidden_size=192, intermediate_size=512)
    exactly = fresh(exact_norms(network.double()), r=32)
    network = network.float()
    monkeypatch.setattr(products, "prefers_onednn", lambda: True)
    products.quicken(network)
    model, batch = fresh(network, r=32), collate(rows((60, 70, 50, 80), seed=1), pad_id=0)
    for name, weight in model.trainable.items():
        weight.data.copy_(exactly.trainable[name].data)
    expected, gradients = by_autograd(exactly, batch)
    with in_training(model) if trains else contextlib.nullcontext():
        found = known(model, batch)
        assert not trains or all(whole is not None for whole in wholes_of(model))
    found.value.backward()
    found.give_back()
    assert float(found.value) == pytest.approx(expected, rel=1e-5)
    in_double = {name: gradient.double() for name, gradient in taken(model).items()}
    assert_same(in_double, gradients, rtol=1e-4)


def test_gradients_add_up_and_nothing_is_given_back_twice() -> None:
    model, batch = fresh(exact()), batch_with_twins()
    _, gradients = by_autograd(model, batch)
    for _ in range(2):
        found = known(model, batch)
        found.value.backward()
        found.give_back()
        found.give_back()
    found.value.backward()
    found.give_back()
    assert_same(taken(model), {name: 3 * gradient for name, gradient in gradients.items()})


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("times", [-0.25, 3.0, 0.0])
def test_gradients_multiplied_on_the_way_are_there_without_a_graph(
    times: float, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "POSITIONS_AT_ONCE", 7)
    monkeypatch.setattr(causal, "WORTH_A_LANE", 20)
    model, batch = fresh(exact()), batch_with_twins()
    expected, gradients = by_autograd(model, batch)
    monkeypatch.setattr(model, "_lanes", lanes)
    ready = model.ready(batch)
    assert ready is not None
    assert len(ready.packed.packings) == lanes
    for _ in range(2):
        found = known(model, batch, times=times)
        found.hand_over()
        with pytest.raises(ValueError, match="shorter"):
            found.hand_over()
    assert float(found.value) == pytest.approx(expected, rel=1e-12)
    assert_same(taken(model), {name: 2 * times * gradient for name, gradient in gradients.items()})


def test_what_no_loss_is_made_of_gives_nothing_back() -> None:
    model = fresh(exact())
    known(model, batch_with_twins()).give_back()
    assert all(weight.grad is None for weight in model.trainable.values())


def test_a_frozen_matrix_gets_no_gradient() -> None:
    model, batch = fresh(exact()), batch_with_twins()
    frozen = next(weight for name, weight in model.trainable.items() if ".lora_A." in name)
    frozen.requires_grad_(False)
    found = known(model, batch)
    found.value.backward()
    found.give_back()
    assert frozen.grad is None
    assert_same(taken(model), by_autograd(model, batch)[1])


def _head_with_an_adapter() -> CausalModel:
    return fresh(exact(), target_modules=("q_proj", "lm_head"))


def _head_of_another_kind() -> CausalModel:
    class Louder(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    network = exact()
    network.lm_head.__class__ = Louder
    return fresh(network)


def _stacked() -> CausalModel:
    model = fresh(exact())
    model.stack(seed=1)
    return model


def _hooked(hook: Callable[[PreTrainedModel], Any]) -> CausalModel:
    model = fresh(exact())
    hook(model.network)
    return model


def nothing(*given: Any) -> None:
    """A hook that changes nothing."""


def _checkpointing() -> CausalModel:
    model = fresh(exact())
    model.network.gradient_checkpointing_enable()
    return model


def _head_that_was_changed() -> CausalModel:
    network = exact()
    plain = network.lm_head.forward
    network.lm_head.forward = lambda x: 2 * plain(x)
    return fresh(network)


@pytest.mark.parametrize(
    "model",
    [
        lambda: fresh(exact(), is_peft=False),
        _head_with_an_adapter,
        _head_of_another_kind,
        lambda: _hooked(lambda network: network.get_output_embeddings().register_forward_hook(nothing)),
        lambda: _hooked(lambda network: network.get_output_embeddings().register_forward_pre_hook(nothing)),
        _head_that_was_changed,
        lambda: _hooked(lambda network: network.get_input_embeddings().register_forward_hook(nothing)),
        _stacked,
        lambda: fresh(exact(), lora_dropout=0.3),
        lambda: fresh(exact(attention_bias=True), lora_bias="all"),
        _checkpointing,
        lambda: fresh(exact(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})),
        lambda: fresh(mistral()),
        lambda: fresh(llama()),
    ],
    ids=[
        "all trained",
        "adapter on the head",
        "another head",
        "hook on the head",
        "hook before the head",
        "changed head",
        "hook on the embedding",
        "two adapters",
        "dropout",
        "biases",
        "checkpointing",
        "growing rotations",
        "no Llama",
        "norms in float32",
    ],
)
def test_other_models_go_their_own_way(model: Any) -> None:
    each = model()
    each.network.train()
    assert asked(each, batch_with_twins()) is None


def test_nothing_is_taken_where_no_gradient_is_wanted() -> None:
    model = fresh(exact())
    with model.evaluating():
        assert asked(model, batch_with_twins()) is None


def test_a_head_that_keeps_more_threads_busy_is_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = fresh(exact()), batch_with_twins()
    with threads.threads(2), model.threads_for(8):
        assert torch.get_num_threads() == 1
        assert asked(model, batch) is not None
        monkeypatch.setattr(threads, "WORTH_A_THREAD", 1000)
        assert asked(model, batch) is None


def test_a_batch_without_targets_adds_nothing() -> None:
    model = fresh(exact())
    found = known(model, collate(rows((1, 1), seed=1), pad_id=0))
    found.value.backward()
    found.give_back()
    assert float(found.value) == 0
    assert not any(gradient.any() for gradient in taken(model).values())


def test_a_loss_may_be_made_of_the_sum_as_often_as_it_likes() -> None:
    model, batch = fresh(exact()), batch_with_twins()
    expected, gradients = by_autograd(model, batch)
    forward = ModelForward(model, batch, range(len(batch.rows)), None, for_one_term=True)
    (forward.log_likelihood() * (forward.log_likelihood() / 100).exp()).backward()
    forward.give_back()
    factor = math.exp(expected / 100) * (1 + expected / 100)
    assert_same(taken(model), {name: factor * gradient for name, gradient in gradients.items()})


def test_where_nothing_can_be_compiled_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(function: object) -> None:
        raise RuntimeError("TorchScript is no more")

    monkeypatch.setattr(torch.jit, "script", gone)
    programs.programs.cache_clear()
    try:
        model, batch = fresh(exact()), batch_with_twins()
        expected, gradients = by_autograd(model, batch)
        found = known(model, batch)
    finally:
        programs.programs.cache_clear()
    assert_gives(model, found, expected, gradients)


@pytest.mark.parametrize(
    ("strategy", "options", "expected"),
    [
        ("naive", {}, 1),
        ("kl", {}, 1),
        ("posneg", {"lambda_proxy": 1.0, "neg_lambda_proxy": 0.5, "beta_kl": 0.0}, 3),
        ("posneg", {"lambda_proxy": 1.0, "neg_lambda_proxy": 0.5, "beta_kl": 1.0}, 2),
    ],
    ids=["one stream", "two, one by divergence", "three", "three, one of two terms"],
)
def test_every_stream_that_one_term_reads_goes_this_way(
    strategy: str, options: dict[str, Any], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[KnownSum] = []
    make = likelihood.known_sum

    def noting(*given: Any) -> KnownSum:
        made.append(make(*given))
        return made[-1]

    monkeypatch.setattr(causal, "known_sum", noting)
    config = configuration(strategy, target_modules=ALL, epochs=2, **options)
    sets = {name: rows(LENGTHS, seed=n) for n, name in enumerate(("outcome", "proxy", "proxy_neg"))}
    assert len(train(exact(), config, sets).steps) == 2
    assert len(made) == 2 * expected


@pytest.mark.parametrize("alone", [True, False])
def test_a_stream_that_more_terms_read_is_passed_for_all_of_them(
    alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = fresh(exact()), batch_with_twins()
    expected, gradients = by_autograd(model, batch)
    passed: list[Batch] = []
    way = model.passed

    def noting(batch: Batch) -> Any:
        passed.append(batch)
        return way(batch)

    monkeypatch.setattr(model, "passed", noting)
    forward = ModelForward(model, batch, range(len(batch.rows)), None, for_one_term=alone)
    total = cross_entropy("outcome").total(forward)
    total.backward()
    forward.give_back()
    assert len(passed) == (not alone)
    assert float(total) == pytest.approx(-expected, rel=1e-12)
    assert_same(taken(model), {name: -gradient for name, gradient in gradients.items()})


def test_a_training_reports_and_learns_what_it_does_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configuration("naive", target_modules=ALL, epochs=3, per_device_train_batch_size=4)
    sets = {"outcome": rows(LENGTHS, seed=1), "proxy": rows(LENGTHS, seed=2)}
    found = train(exact(), config, sets)
    monkeypatch.setattr(CausalModel, "log_likelihood", lambda *_, **__: None)
    expected = train(exact(), config, sets)
    losses = [step.loss for step in expected.steps]
    assert [step.loss for step in found.steps] == pytest.approx(losses, rel=1e-9)
    for name, weight in found.after.items():
        torch.testing.assert_close(weight, expected.after[name], rtol=1e-9, atol=1e-12)
