"""What a run says of its own time and speed. Run: pytest tests/training/test_speed.py"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine import run

from triggerctl.cli.run_result import cost_lines
from triggerctl.errors import InterruptedRunError
from triggerctl.experiment.cache import Cache
from triggerctl.experiment.stored_results import read_results
from triggerctl.model.device import matmul_rate
from triggerctl.training import speed
from triggerctl.training.events import Event, Stepped
from triggerctl.training.speed import Work, best_matmul_rate, operations_per_token
from triggerctl.training.stopwatch import PHASES, Stopwatch

CPU = torch.device("cpu")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def test_a_phase_inside_another_has_its_own_time_and_nothing_is_lost() -> None:
    clock = Clock()
    watch = Stopwatch({"start": 4.0}, clock=clock)
    clock.wait(1)
    with watch.phase("training"):
        clock.wait(10)
        with watch.phase("evaluation"):
            clock.wait(3)
        clock.wait(20)
    assert watch.read() == {"start": 4, "training": 30, "evaluation": 3, "other": 1}


def test_time_before_an_error_is_counted() -> None:
    clock = Clock()
    watch = Stopwatch(clock=clock)

    def fail() -> None:
        with watch.phase("training"):
            clock.wait(5)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    clock.wait(1)
    assert watch.read() == {"training": 5, "other": 1}


@pytest.mark.parametrize(
    ("is_peft", "checkpointing", "operations"),
    [(True, False, 4), (True, True, 6), (False, False, 6), (False, True, 8)],
)
def test_operations_of_a_trained_token(is_peft: bool, checkpointing: bool, operations: int) -> None:
    assert operations_per_token(is_peft=is_peft, checkpointing=checkpointing) == operations


def test_a_run_at_the_floor_has_a_share_of_one() -> None:
    work = Work(trained=1000, evaluated=500, parameters=10**6, operations=4, matmul_rate=1e9)
    timings = {"training": 4.0, "evaluation": 0.4, "base_evaluation": 0.6}
    found = work.throughput(timings)
    assert found["training_share_of_floor"] == pytest.approx(1)
    assert found["evaluation_share_of_floor"] == pytest.approx(1)
    assert found["share_of_floor"] == pytest.approx(1)
    assert found["trained_tokens_per_second"] == 250
    assert work.throughput({**timings, "other": 5.0})["share_of_floor"] == pytest.approx(0.5)


def test_what_was_not_done_has_no_speed() -> None:
    work = Work(trained=0, evaluated=0, parameters=10**6, operations=4, matmul_rate=1e9)
    assert work.throughput({"other": 0.0}) == {"matmul_operations_per_second": 1e9}


def test_measuring_the_machine_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    assert matmul_rate(CPU, torch.float32, rows=64, inner=48, columns=96, seconds=0.01) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_the_best_rate_ever_measured_counts(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(tiny_model)

    def measured(rate: float, cache: Cache) -> float:
        monkeypatch.setattr(speed, "matmul_rate", lambda *_, **__: rate)
        monkeypatch.setattr(speed, "_MEASURED", {})  # as in a process of its own
        return best_matmul_rate(network, CPU, torch.float32, cache)

    shelf = Cache()
    assert [measured(rate, shelf) for rate in (2e9, 1e9, 3e9)] == [2e9, 2e9, 3e9]
    assert shelf.used == []
    assert measured(1e9, Cache(enabled=False)) == 1e9


def ours(results: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((results / "results.json").read_text(encoding="utf-8"))[
        "triggerctl"
    ]
    return document


def test_a_runs_phases_are_within_its_time(make_experiment: Callable[..., Path]) -> None:
    began = time.perf_counter()
    found = ours(run(make_experiment(), figures=lambda *_: time.sleep(0.2)))
    whole = time.perf_counter() - began
    timings = found["timings"]
    assert set(timings) <= set(PHASES)
    assert all(
        timings[name] > 0 for name in ("load", "tokenise", "base_evaluation", "training", "evaluation")
    )
    assert timings["figures"] >= 0.2
    assert sum(timings.values()) <= whole
    assert found["tokens"]["evaluated"] <= found["tokens"]["evaluated_padded"]
    assert 0 < found["throughput"]["share_of_floor"] < 1


def test_an_interrupted_runs_training_time_is_that_of_both_parts(
    make_experiment: Callable[..., Path],
) -> None:
    folder, stop = make_experiment(), threading.Event()

    def slow_then_stopped(event: Event) -> None:
        if isinstance(event, Stepped):
            time.sleep(0.3)
            stop.set()

    with pytest.raises(InterruptedRunError):
        run(folder, listener=slow_then_stopped, stop=stop)
    found = ours(run(folder))
    assert found["timings"]["training"] >= 0.3
    rate = found["tokens"]["trained"] / found["timings"]["training"]
    assert found["throughput"]["trained_tokens_per_second"] == pytest.approx(rate)


def test_an_evaluation_out_of_the_cache_counts_for_no_speed(make_experiment: Callable[..., Path]) -> None:
    untrained = {"finetune": {"epochs": 0}}
    first, second = (ours(run(make_experiment(name, **untrained))) for name in ("one", "two"))
    assert "evaluated_tokens_per_second" in first["throughput"]
    assert "evaluated_tokens_per_second" not in second["throughput"]
    assert first["tokens"] == second["tokens"]


def test_the_closing_screen_tells_time_and_speed(make_experiment: Callable[..., Path]) -> None:
    results = read_results(run(make_experiment())).ours
    assert results is not None
    # This tiny run's own times may be too short to be named.
    timed = {"load": 0.2, "training": 5.0, "evaluation": 0.01, "other": 0.3}
    (_, spent), (_, fast) = cost_lines(results.model_copy(update={"timings": timed}))
    assert spent == "5.5 s: training 5.0 s, load 0.2 s, other 0.3 s"
    assert fast.count("of the floor") == 2
    old = results.model_copy(update={"timings": {"training": 1.0, "evaluation": 2.0}, "throughput": {}})
    assert cost_lines(old) == []
