"""When memory runs out, a run goes on with less at a time, once. Run: pytest
tests/training/test_out_of_memory.py"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from engine import planned, run, state
from safetensors.torch import load_file

from triggerctl.errors import RunError
from triggerctl.training.decision import Action
from triggerctl.training.gradients import GradientPass, UpdateGradients
from triggerctl.training.streams import Units

MakeExperiment = Callable[..., Path]
ENOUGH = 8


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Lets updates fail that put more than `rows` through the model at once, from the third one on; returns
    the sizes that were tried."""

    def limit(rows: int, error: Callable[[], Exception]) -> list[int]:
        tried: list[int] = []
        real = GradientPass.of

        def of(self: GradientPass, units: Units, following: Sequence[Units] = ()) -> UpdateGradients:
            tried.append(self._limit)
            if self._limit > rows and len(tried) > 2:
                raise error()
            return real(self, units, following)

        monkeypatch.setattr(GradientPass, "of", of)
        return tried

    return limit


ERRORS = {
    "a GPU's": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore."),
    "a CPU's": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
    "Python's": lambda: MemoryError("no memory"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=list(ERRORS))
def test_it_goes_on_with_half_and_makes_the_same_updates(
    make_experiment: MakeExperiment, room_for: Callable[..., list[int]], error: Callable[[], Exception]
) -> None:
    undisturbed = run(make_experiment("undisturbed", finetune={"max_to_eval": 4}))
    folder = make_experiment("short", finetune={"max_to_eval": 4})
    tried = room_for(ENOUGH, error)
    results = run(folder)
    assert set(tried) == {2 * ENOUGH, ENOUGH}
    found = json.loads((results / "results.json").read_text(encoding="utf-8"))["triggerctl"]
    whole = json.loads((undisturbed / "results.json").read_text(encoding="utf-8"))["triggerctl"]
    assert found["hash"] == whole["hash"]
    assert found["resolved"]["micro_batch"] == ENOUGH
    assert whole["resolved"]["micro_batch"] == 2 * ENOUGH
    (warning,) = [said for said in found["warnings"] if "out of memory" in said]
    assert "8 rows at a time instead of 16" in warning
    assert [e["label"] for e in found["evaluations"]] == [e["label"] for e in whole["evaluations"]]
    ours, theirs = (load_file(path / "adapter/adapter_model.safetensors") for path in (results, undisturbed))
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], rtol=1e-3, atol=1e-5)
    assert len(list((folder / "results").iterdir())) == 1
    assert state(folder)["status"] == "done"


def test_the_second_time_it_fails_and_says_how_little_was_too_much(
    make_experiment: MakeExperiment, room_for: Callable[..., list[int]]
) -> None:
    folder = make_experiment(finetune={"max_to_eval": 4})
    tried = room_for(2, ERRORS["a GPU's"])
    with pytest.raises(RunError) as caught:
        run(folder)
    assert "with 8 rows at a time" in str(caught.value)
    assert tried[-1] == ENOUGH
    assert state(folder)["status"] == "failed"
    assert "out of memory" in state(folder)["error"]
    assert planned(folder).action is Action.RESUME


def test_another_error_is_not_taken_for_it(
    make_experiment: MakeExperiment, room_for: Callable[..., list[int]]
) -> None:
    folder = make_experiment(finetune={"max_to_eval": 4})
    tried = room_for(2, lambda: RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(folder)
    assert set(tried) == {2 * ENOUGH}
    assert state(folder)["status"] == "failed"
