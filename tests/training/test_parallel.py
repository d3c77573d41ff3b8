"""A run trained by two processes is the run that one process trains: losses, weights and evaluations.

pytest tests/training/test_parallel.py"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from engine import left_behind, no_figures, planned, run, state
from every_strategy import experiment_for
from safetensors.torch import load_file

from triggerctl.errors import InputError, InterruptedRunError, RunError
from triggerctl.experiment.stored_results import read_results
from triggerctl.model.device import default_threads
from triggerctl.strategies.base import Tensors, Update
from triggerctl.strategies.naive import Naive
from triggerctl.training import followers as followers_module
from triggerctl.training import parallel
from triggerctl.training.events import Event, Noted, Progress, Stepped
from triggerctl.training.followers import devices_of
from triggerctl.training.run import execute

MakeExperiment = Callable[..., Path]

TOLERANCE = 1e-5
"""How far two processes may be from one, relative: sums in another order."""

SMALL = 0.1
"""Numbers below this are held against it: a divergence that is nearly 0 is a difference of large numbers."""

UPDATES = 50

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("naive", {}),
    "all weights, and what the base says": ("kl_divergence", {"is_peft": False, "save_model_locally": True}),
    "gradients of two groups": ("grad_project", {}),
    "pairs": ("dpo", {}),
    "phases before, and a penalty": ("orth_penalty", {"proxy_epochs": 1}),
    "an ending": ("safe_lora", {"proxy_epochs": 1, "max_steps": 8}),
}

MAY_DIFFER = ("padded", "processes", "cache_entries")


def make(variant: str, name: str, make_experiment: MakeExperiment, **finetune: Any) -> Path:
    """An epoch of naive ends with an update of a single row, of which one process has nothing."""
    strategy, options = VARIANTS[variant]
    values = {"per_device_train_batch_size": 7, "epochs": 30, "max_steps": UPDATES, "checkpoint_frequency": 9}
    return experiment_for(strategy, make_experiment, name=name, **{**values, **options, **finetune})


def difference(one: Path, two: Path) -> float:
    """How far the numbers of two results are apart, relative, at most. Fails where anything else differs."""
    a, b = left_behind(one), left_behind(two)
    assert a.keys() == b.keys()
    found = [_apart(a["results.json"], b["results.json"], "results.json")]
    found += [_apart(_lines(one / name), _lines(two / name), name) for name in a if name.endswith(".jsonl")]
    found += [_weights_apart(one / name, two / name) for name in a if name.endswith(".safetensors")]
    return max(found)


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _apart(one: Any, two: Any, where: str) -> float:
    assert type(one) is type(two), where
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        parts = [_apart(one[key], two[key], f"{where}/{key}") for key in one if key not in MAY_DIFFER]
        return max(parts, default=0.0)
    if isinstance(one, list):
        assert len(one) == len(two), where
        return max((_apart(a, b, where) for a, b in zip(one, two, strict=True)), default=0.0)
    if isinstance(one, float):
        apart: float = abs(one - two) / max(abs(one), SMALL)
        return apart
    assert one == two, where
    return 0.0


def _weights_apart(one: Path, two: Path) -> float:
    """Of each tensor, by norm."""
    a, b = load_file(one), load_file(two)
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).norm() / a[name].norm()) for name in a if a[name].any())


def followers() -> list[psutil.Process]:
    """The further processes of this one's run: their parent is the server that forks them."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # It ended meanwhile.
            found += child.children()
    return found


def losses(results: Path) -> list[float]:
    return [line["loss"] for line in _lines(results / "metrics.jsonl") if line["event"] == "step"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_train_what_one_trains(
    variant: str, make_experiment: MakeExperiment, record_property: Callable[[str, object], None]
) -> None:
    """Every loss, every evaluation and all weights, over 50 updates and more."""
    one = run(make(variant, "one", make_experiment))
    two = run(make(variant, "two", make_experiment), processes=2)
    apart = difference(one, two)
    assert apart < TOLERANCE
    record_property("apart", apart)
    assert losses(two)[-1] < losses(two)[0]
    ours = read_results(two).ours
    assert ours is not None
    assert ours.resolved["processes"] == 2


def test_it_stops_and_goes_on_bit_for_bit_with_the_processes_that_it_began_with(
    make_experiment: MakeExperiment,
) -> None:
    """With dropout, which each process draws by itself; stopped in an update and in an evaluation."""
    options = {"lora_dropout": 0.2, "max_steps": 10, "checkpoint_frequency": 1}
    undisturbed = run(make("LoRA", "undisturbed", make_experiment, **options), processes=2)
    folder = make("LoRA", "stopped", make_experiment, **options)

    def stopped_by(listener: Callable[[Event, threading.Event], None], processes: int) -> None:
        stop = threading.Event()
        with pytest.raises(InterruptedRunError):
            run(folder, listener=lambda event: listener(event, stop), stop=stop, processes=processes)
        assert state(folder)["status"] == "interrupted"
        assert not followers()

    def after_three_updates(event: Event, stop: threading.Event) -> None:
        if isinstance(event, Stepped) and event.step == 3:
            stop.set()

    def in_the_next_evaluation(event: Event, stop: threading.Event) -> None:
        if isinstance(event, Progress) and event.stage == "evaluate":
            stop.set()

    stopped_by(after_three_updates, 2)
    assert state(folder)["step"] == 3
    stopped_by(in_the_next_evaluation, 1)
    assert left_behind(run(folder, processes=1)) == left_behind(undisturbed)


def test_a_plane_that_is_known_is_taken_by_all_processes(make_experiment: MakeExperiment) -> None:
    folder = make("phases before, and a penalty", "planes", make_experiment, max_steps=3)
    computed = run(folder, processes=2)
    said: list[str] = []

    def listener(event: Event) -> None:
        if isinstance(event, Noted):
            said.append(event.message)

    taken = run(folder, processes=2, fresh=True, listener=listener)
    assert any("alignment plane taken from" in message for message in said)
    weights = "adapter/adapter_model.safetensors"
    assert left_behind(taken)[weights] == left_behind(computed)[weights]


def test_a_process_that_is_killed_ends_the_run_with_a_reason(make_experiment: MakeExperiment) -> None:
    folder = make("LoRA", "killed", make_experiment, max_steps=6)

    def kill(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            [follower] = followers()
            follower.send_signal(signal.SIGKILL)

    with pytest.raises(RunError, match="process 2 of the 2 that train this run has ended") as raised:
        run(folder, processes=2, listener=kill)
    assert "signal 9" in str(raised.value)
    assert state(folder)["status"] == "failed"
    assert "process 2 of the 2" in state(folder)["error"]
    assert not followers()
    assert not (folder / ".lock").exists()


class FailsElsewhere(Naive):
    """Raises in every process but the first."""

    def after_update(self, weights: Tensors, update: Update) -> None:
        if multiprocessing.parent_process() is not None and update.index == 1:
            raise ValueError("the second process has had enough")


def test_a_process_that_fails_ends_the_run_with_its_own_words(make_experiment: MakeExperiment) -> None:
    folder = make("LoRA", "failing", make_experiment, max_steps=6)
    plan = replace(planned(folder), strategy=FailsElsewhere)
    with pytest.raises(RunError, match="ValueError: the second process has had enough"):
        execute(
            plan,
            listener=lambda event: None,
            stop=threading.Event(),
            figures=no_figures,
            device="cpu",
            threads=1,
            processes=2,
        )
    assert "Traceback" in (folder / "run.log").read_text(encoding="utf-8")
    assert state(folder)["status"] == "failed"


def test_processes_share_the_cores(make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started as on a GPU: without a fork, and told of environment and working folder all the same."""
    monkeypatch.setattr(followers_module, "start_method", lambda device: "spawn")
    folder = make("LoRA", "threads", make_experiment, max_steps=2)
    ours = read_results(run(folder, processes=2, threads=None)).ours
    assert ours is not None
    assert ours.resolved["threads"] == max(1, default_threads() // 2)


def test_a_gpu_for_each_process_or_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    first = torch.device("cuda:0")
    assert devices_of(first, 2) == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert devices_of(torch.device("cuda:1"), 1) == [torch.device("cuda:1")]
    assert devices_of(torch.device("cpu"), 3) == [torch.device("cpu")] * 3
    for device, processes in ((first, 3), (torch.device("cuda:1"), 2), (torch.device("mps"), 2)):
        with pytest.raises(InputError, match="need a GPU each") as raised:
            devices_of(device, processes)
        assert "--gpus-per-run" in str(raised.value)


def test_a_plan_travels_whole(make_experiment: MakeExperiment) -> None:
    plan = planned(make("LoRA", "plan", make_experiment))
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan
    with pytest.raises(TypeError):
        again.splits.sets["outcome"] = None


class TwoAlike(parallel.Team):
    """Two processes that hold the same, without a second one: what is summed doubles."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(0, 2, torch.device("cpu"), lambda error: RunError(str(error)))
        self.sizes: list[int] = []

        def reduce(tensor: torch.Tensor, how: str) -> torch.Tensor:
            assert how == "sum"
            self.sizes.append(tensor.numel())
            return tensor * 2

        monkeypatch.setattr("accelerate.utils.reduce", reduce)


def test_gradients_are_summed_in_pieces_and_a_weight_without_one_stays_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "BUCKET", 12)
    shapes = {"a": (2, 3), "b": (4,), "none": (3,), "wide": (5, 4), "c": (1,)}
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    gradients = {name: torch.rand(shape).bfloat16() for name, shape in shapes.items() if name != "none"}
    group = TwoAlike(monkeypatch)
    found = group.sum_gradients(gradients, weights)
    assert list(found) == ["a", "b", "wide", "c"]
    for name, gradient in found.items():
        assert gradient.dtype == torch.bfloat16
        assert torch.equal(gradient, gradients[name] * 2), name
    assert sum(group.sizes) == len(shapes) + sum(weight.numel() for weight in weights.values())
    assert max(group.sizes) == 20  # a tensor is never cut


def test_weights_that_drift_apart_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    group = parallel.Team(0, 2, torch.device("cpu"), lambda error: RunError(str(error)))
    others: Mapping[str, float] = {"first": 6.0, "second": 8.0}

    def gather(items: list[Any]) -> list[Any]:
        return [*items, list(others.values())]

    monkeypatch.setattr("accelerate.utils.gather_object", gather)
    group.check_same({"first": torch.full((2, 3), -1.0), "second": torch.full((2,), 4.00001)})
    with pytest.raises(RunError, match="drifted apart") as raised:
        group.check_same({"first": torch.full((2, 3), -1.0), "second": torch.full((2,), 4.01)})
    assert "second" in str(raised.value)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_gpus_train_what_one_trains(variant: str, make_experiment: MakeExperiment) -> None:
    """In float32: no more than sums in another order, which kernels take themselves."""
    found = []
    for processes in (1, 2):
        folder = make(variant, f"on-{processes}", make_experiment, dtype="float32")
        results = execute(
            planned(folder),
            listener=lambda event: None,
            stop=threading.Event(),
            figures=no_figures,
            device="cuda",
            threads=1,
            processes=processes,
        )
        found.append(losses(results))
    assert found[1] == pytest.approx(found[0], rel=1e-3)
