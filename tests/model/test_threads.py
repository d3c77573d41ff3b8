"""How many threads work of a size gets, in products and side by side: by rule, never more than were given,
and given back. Passes side by side give what one pass gives.

pytest tests/model/test_threads.py"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from small_models import causal_model, configuration, llama, rows
from torch import Tensor

from triggerctl.data.batches import collate
from triggerctl.model.threads import (
    LARGE_PRODUCT,
    WORKERS,
    WORTH_A_LANE,
    WORTH_A_THREAD,
    ahead,
    on_threads_of_their_own,
    share_out,
    side_by_side,
    threads,
    threads_that_pay,
)


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("operations", "paying"),
    [(0, 1), (WORTH_A_THREAD - 1, 1), (2 * WORTH_A_THREAD, 2), (3 * WORTH_A_THREAD - 1, 2), (10**12, 4)],
)
def test_a_thread_is_woken_for_work_that_pays(operations: int, paying: int) -> None:
    assert threads_that_pay(operations, 4) == paying


@pytest.mark.parametrize(
    ("operations", "tokens", "lanes", "expected"),
    [
        pytest.param(1000, 10_000, True, (1, 4), id="small products: all threads side by side"),
        pytest.param(1000, 2 * WORTH_A_LANE, True, (1, 2), id="as many lanes as there are tokens for"),
        pytest.param(1000, 10, True, (1, 1), id="too few tokens for two"),
        pytest.param(LARGE_PRODUCT, 10_000, True, (4, 1), id="large products are shared"),
        pytest.param(LARGE_PRODUCT - 1, 2 * WORTH_A_LANE, True, (2, 2), id="some of both"),
        pytest.param(2 * WORTH_A_THREAD, 10_000, False, (2, 1), id="no lanes allowed"),
    ],
)
def test_threads_share_products_or_go_side_by_side(
    operations: int, tokens: int, lanes: bool, expected: tuple[int, int]
) -> None:
    assert share_out(4, operations=operations, tokens=tokens, lanes=lanes) == expected


def test_what_was_given_comes_back_after_an_error() -> None:
    with threads(2):
        assert torch.get_num_threads() == 2
    with pytest.raises(ValueError, match="on the way"), threads(1):
        raise ValueError("on the way")
    assert torch.get_num_threads() == 4


def test_each_pass_has_a_thread_and_the_sum_of_gradients_arrives() -> None:
    weight = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    unused = torch.ones(1, dtype=torch.float64, requires_grad=True)
    both = threading.Barrier(2, timeout=10)

    def one(scale: float) -> tuple[Tensor, Tensor]:
        both.wait()  # would not come through one after the other
        return weight[None] * scale, (weight**2).sum()[None]

    first, second = side_by_side([lambda: one(1.0), lambda: one(10.0)], [weight, unused])
    assert first.tolist() == [[2.0, 3.0], [20.0, 30.0]]
    assert second.tolist() == [13.0, 13.0]
    (first.sum() + 100 * second[1]).backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [11 + 400, 11 + 600]
    assert unused.grad is None


def test_an_error_in_one_pass_comes_once_all_have_ended() -> None:
    ended = []

    def fails() -> tuple[Tensor, ...]:
        raise ValueError("in a lane")

    def works() -> tuple[Tensor, ...]:
        ended.append(True)
        return (torch.zeros(1),)

    for passes in ([fails, works], [works, fails]):
        with pytest.raises(ValueError, match="in a lane"), torch.no_grad():
            side_by_side(passes, [])
    assert len(ended) == 2


def test_an_error_on_the_way_to_a_lane_comes_once_all_have_ended() -> None:
    ended, begun = [], threading.Event()

    def prepared(number: int) -> int:
        if number == 1:
            begun.wait(10)
            raise ValueError("before the lane")
        return number

    def act(number: int) -> None:
        begun.set()
        time.sleep(0.05)
        ended.append(number)

    with pytest.raises(ValueError, match="before the lane"):
        on_threads_of_their_own(act, [0, 1, 2], prepared=prepared)
    assert ended == [0]


@pytest.mark.parametrize("beside", [False, True])
def test_what_is_begun_ahead_is_all_there_in_its_order(beside: bool) -> None:
    found = ahead(lambda number: (number, torch.get_num_threads()), [3, 1, 2], beside=beside)
    here = torch.get_num_threads()
    assert found() == [(3, here), (1, here), (2, here)]


def test_what_no_thread_has_begun_is_done_by_who_asks() -> None:
    busy, may_end = [threading.Event() for _ in range(WORKERS)], threading.Event()

    def act(number: int) -> int:
        if number < len(busy):
            busy[number].set()
            may_end.wait(10)
        return threading.get_ident()

    found = ahead(act, range(len(busy) + 2), beside=True)
    for each in busy:
        assert each.wait(10)
    threading.Timer(0.1, may_end.set).start()
    done_by = found()
    assert threading.get_ident() not in done_by[: len(busy)]
    assert done_by[len(busy) :] == [threading.get_ident()] * 2


def test_an_error_ahead_comes_when_it_is_asked_for() -> None:
    def act(number: int) -> float:
        return 1 / number

    for beside in (False, True):
        found = ahead(act, [1, 0], beside=beside)
        for _ in range(2):  # as often as it is asked for
            with pytest.raises(ZeroDivisionError):
                found()


@pytest.mark.parametrize("beside", [False, True])
def test_no_error_ahead_is_taken_for_the_end(beside: bool) -> None:
    found = ahead(lambda number: [0][number], [0, 1], beside=beside)
    with pytest.raises(IndexError):
        found()


def test_what_has_failed_ahead_is_tried_again_by_who_asks() -> None:
    here, tried = threading.get_ident(), threading.Event()

    def act(number: int) -> int:
        if threading.get_ident() != here:
            tried.set()
            raise MemoryError
        return number

    found = ahead(act, [1, 2], beside=True)
    assert tried.wait(10)
    assert found() == [1, 2]


def test_each_is_done_once_ahead() -> None:
    done: list[int] = []
    for _ in range(50):
        done.clear()
        assert ahead(done.append, range(20), beside=True)() == [None] * 20
        assert sorted(done) == list(range(20))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_makes_threads_of_its_own() -> None:
    def two() -> None:
        with torch.no_grad():
            side_by_side([lambda: (torch.zeros(1),)] * 2, [])

    two()
    child = os.fork()
    if child == 0:
        two()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("every_layer", [False, True], ids=["last states", "every layer"])
def test_lanes_give_the_gradients_of_one_pass(every_layer: bool) -> None:
    batch = collate(rows([120, 100, 90, 110, 80], seed=1), pad_id=0)
    found = []
    for lanes in (1, 2, 4):
        model = causal_model(llama(), configuration("naive").finetune_config, packs=True)
        with model.threads_for(lanes * WORTH_A_LANE):
            passes = len(model.pack_shared(batch.rows).packings)
            states = model.layers(batch) if every_layer else (model.states(batch),)
            total = sum(place * state.square().sum() for place, state in enumerate(states, 1))
            assert isinstance(total, Tensor)
            total.backward()
        assert passes == lanes
        found.append((states, {name: weight.grad for name, weight in model.trainable.items()}))
    (one, gradients), *others = found
    for states, theirs in others:
        for state, own in zip(states, one, strict=True):
            torch.testing.assert_close(state, own, rtol=1e-9, atol=1e-9)
        for name, gradient in gradients.items():
            torch.testing.assert_close(theirs[name], gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("finetune", "expected"),
    [
        pytest.param({"lora_dropout": 0.1}, 1, id="dropout, which all threads would draw from one source"),
        pytest.param({"is_peft": False}, 1, id="all weights, whose gradients each lane would have"),
        pytest.param({}, 4, id="an adapter"),
    ],
)
def test_only_where_it_is_safe(finetune: dict[str, object], expected: int) -> None:
    model = causal_model(llama(), configuration("naive", **finetune).finetune_config, packs=True)
    model.network.train()
    batch = collate(rows([120, 100, 90, 110, 80], seed=1), pad_id=0)
    with model.threads_for(1000):
        assert len(model.pack_shared(batch.rows).packings) == expected
    with model.evaluating(), model.threads_for(1000):
        assert len(model.pack_shared(batch.rows).packings) == 4


@pytest.mark.parametrize(
    "options",
    [
        {"router_jitter_noise": 0.1},
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    ],
    ids=["chance of another name", "a pass that leaves something for the next"],
)
def test_not_in_models_whose_passes_share_more_than_weights(options: dict[str, object]) -> None:
    network = llama()
    for name, value in options.items():
        setattr(network.config, name, value)
    model = causal_model(network, configuration("naive").finetune_config, packs=True)
    model.network.train()
    batch = collate(rows([120, 100, 90, 110, 80], seed=1), pad_id=0)
    with model.threads_for(1000):
        assert len(model.pack_shared(batch.rows).packings) == 1


def test_dropout_falls_on_each_row_anew() -> None:
    model = causal_model(llama(), configuration("naive", lora_dropout=0.5).finetune_config, packs=True)
    for name, weight in model.trainable.items():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    model.network.train()
    [row] = rows([8], seed=1)
    batch = collate([row, row], pad_id=0)
    first, second = model.states(batch).split(batch.lengths)
    assert not torch.allclose(first, second)
    with model.evaluating():
        first, second = model.states(batch).split(batch.lengths)
        assert torch.equal(first, second)
        assert model.passed(batch).states.shape[0] == 8
