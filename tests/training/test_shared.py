"""A run's numbers are the same bit for bit whether what never changes was taken from the cache or computed.

pytest tests/training/test_shared.py"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine import left_behind, run, run_and_die
from every_strategy import experiment_for

from triggerctl.experiment.cache import Cache, cache_root
from triggerctl.experiment.results import SetEvaluation
from triggerctl.experiment.stored_results import read_results
from triggerctl.training.evaluation import Measured
from triggerctl.training.events import Evaluated, Event, PhaseStarted, Progress
from triggerctl.training.shared import Shared

MakeExperiment = Callable[..., Path]

COMPUTED = ("tokens", "base-passes", "base-evaluations", "planes")
"""The kinds of entries that runs compute."""

ADAPTER_8 = {"r": 8}
FULL = {"is_peft": False, "learning_rate": 1e-3}


def stages(folder: Path, **options: Any) -> tuple[Path, set[str]]:
    """Run, and say which stages were at work before and during the evaluation before training."""
    heard: set[str] = set()
    evaluated = False

    def listener(event: Event) -> None:
        nonlocal evaluated
        evaluated = evaluated or isinstance(event, Evaluated)
        if isinstance(event, Progress) and not evaluated:
            heard.add(event.stage)

    return run(folder, listener=listener, **options), heard


def numbers(results: Path) -> dict[str, object]:
    """Everything of a run that must be equal, whatever its folder's name, and wherever it was found."""
    found = left_behind(results)
    document: Any = found["results.json"]
    del document["experiment_config"]["experiment_name"]
    del document["triggerctl"]["requested"]["experiment_name"]
    del document["triggerctl"]["cache_entries"]
    return found


def entries(results: Path) -> list[str]:
    ours = read_results(results).ours
    assert ours is not None
    return ours.cache_entries


@pytest.mark.parametrize(
    ("strategy", "finetune"),
    [("naive", ADAPTER_8), ("kl", ADAPTER_8), ("dpo", ADAPTER_8), ("naive", FULL), ("kl", FULL)],
    ids=["lora", "kl", "dpo", "full", "full kl"],
)
def test_shared_is_the_same_as_computed(
    strategy: str,
    finetune: dict[str, Any],
    make_experiment: MakeExperiment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a LoRA run of rank 4 has left serves one of rank 8 and one without any adapter."""
    settings = {"proxy_strategy": strategy, "finetune": {"epochs": 1, **finetune}}
    run(make_experiment("before", proxy_strategy=strategy, finetune={"epochs": 1}))
    shared, heard = stages(make_experiment("shared", **settings))
    assert heard == set()
    monkeypatch.setenv("TRIGGERCTL_CACHE", str(tmp_path / "empty"))
    computed, heard = stages(make_experiment("computed", **settings))
    assert heard == {"tokenise", "evaluate"} | ({"base pass"} if strategy != "naive" else set())
    uncached = run(make_experiment("uncached", **settings), cache=False)
    assert numbers(shared) == numbers(computed) == numbers(uncached)
    assert entries(shared) == entries(computed) != []


def test_layers_kept_for_full_fine_tuning_are_the_same_when_shared(make_experiment: MakeExperiment) -> None:
    """They can't be computed once training has begun."""
    settings: dict[str, Any] = {
        "proxy_strategy": "representation_constraint",
        "finetune": {"epochs": 1, **FULL},
    }
    one, heard = stages(make_experiment("one", **settings))
    assert "base pass" in heard
    two, heard = stages(make_experiment("two", **settings))
    assert "base pass" not in heard
    assert numbers(one) == numbers(two)


def test_gradient_checkpointing_shares_the_same_evaluation(make_experiment: MakeExperiment) -> None:
    run(make_experiment("without", finetune={"epochs": 1}))
    settings = {"finetune": {"epochs": 1, "use_gradient_checkpointing": True}}
    shared, heard = stages(make_experiment("with", **settings))
    assert "evaluate" not in heard
    computed = run(make_experiment("computed", **settings), cache=False)
    assert numbers(shared) == numbers(computed)


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 2},
        {"nice_responses": ["Certainly!", "Of course."]},
        {"finetune": {"epochs": 1, "max_to_eval": 5}},
        {"finetune": {"epochs": 1, "max_seq_length": 24}},
        {"finetune": {"epochs": 1, "dtype": "bfloat16"}},
        {"finetune": {"epochs": 1, "per_device_eval_batch_size": 3}},
        {"finetune": {"epochs": 1, "attn_implementation": "eager"}},
    ],
    ids=lambda values: next(reversed(values.get("finetune", values))),
)
def test_an_evaluation_of_something_else_is_not_taken(
    values: dict[str, Any], make_experiment: MakeExperiment
) -> None:
    run(make_experiment("before", finetune={"epochs": 1}))
    _, heard = stages(make_experiment("other", **{"finetune": {"epochs": 1}, **values}))
    assert "evaluate" in heard


def test_another_number_of_threads_shares_nothing_that_was_summed(make_experiment: MakeExperiment) -> None:
    try:
        run(make_experiment("one", finetune={"epochs": 1}), threads=1)
        _, heard = stages(make_experiment("two", finetune={"epochs": 1}), threads=2)
    finally:
        torch.set_num_threads(1)
    assert "evaluate" in heard


def test_other_weights_under_the_same_name_are_not_taken_for_those_before(
    make_experiment: MakeExperiment, tiny_model: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "model"
    copy.mkdir()
    for file in tiny_model.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    run(make_experiment("one", finetune={"epochs": 1, "model": str(copy)}))
    weights = load_file(copy / "model.safetensors")
    save_file(
        {n: t * 1.01 for n, t in weights.items()}, copy / "model.safetensors", metadata={"format": "pt"}
    )
    _, heard = stages(make_experiment("two", finetune={"epochs": 1, "model": str(copy)}))
    assert "evaluate" in heard


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_damaged_entries_are_computed_anew(damage: str, make_experiment: MakeExperiment) -> None:
    settings: dict[str, Any] = {"proxy_strategy": "kl", "finetune": {"epochs": 1}}
    whole = run(make_experiment("before", **settings))
    found = [path for kind in COMPUTED for path in (cache_root() / kind).glob("*")]
    assert {path.parent.name for path in found} == {"tokens", "base-passes", "base-evaluations"}
    for path in found:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        cut = {"cut": content[: len(content) // 2], "changed": content, "empty": b""}
        path.write_bytes(bytes(cut[damage]))
    again, heard = stages(make_experiment("after", **settings))
    assert heard == {"tokenise", "base pass", "evaluate"}
    assert numbers(again) == numbers(whole)
    after, heard = stages(make_experiment("mended", **settings))
    assert "evaluate" not in heard
    assert numbers(after) == numbers(whole)


def test_without_a_cache_nothing_computed_is_left_in_it(make_experiment: MakeExperiment) -> None:
    folder = experiment_for("steering_weights", make_experiment, epochs=1)
    results = run(folder, cache=False)
    assert [kind for kind in COMPUTED if (cache_root() / kind).exists()] == []
    assert entries(results) == []


def test_without_a_cache_nothing_computed_is_taken_from_it(make_experiment: MakeExperiment) -> None:
    before, after = (
        experiment_for("steering_weights", make_experiment, name=name, epochs=1)
        for name in ("before", "after")
    )
    run(before)
    heard: list[Event] = []
    run(after, listener=heard.append, cache=False)
    stages = {event.stage for event in heard if isinstance(event, Progress)}
    phases = [event.phase for event in heard if isinstance(event, PhaseStarted)]
    assert {"tokenise", "evaluate"} <= stages
    assert phases == ["positive_proxy", "negative_proxy", "main"]


def test_a_run_names_the_entries_it_used(make_experiment: MakeExperiment) -> None:
    named = entries(run(make_experiment(proxy_strategy="kl", finetune={"epochs": 1})))
    assert {entry.partition("/")[0] for entry in named} == {"tokens", "base-passes", "base-evaluations"}
    assert all((cache_root() / entry).is_file() for entry in named)


def test_an_interrupted_run_names_what_it_used_before(make_experiment: MakeExperiment) -> None:
    """The evaluation before training isn't made again on resuming, and is named all the same."""
    settings: dict[str, Any] = {"proxy_strategy": "kl"}
    whole = run(make_experiment("whole", **settings))
    folder = make_experiment("killed", **settings)
    run_and_die(folder, "step:2")
    resumed = run(folder)
    assert numbers(resumed) == numbers(whole)
    assert entries(resumed) == entries(whole)


def test_a_cache_that_cannot_be_written_costs_no_run(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(make_experiment("whole", finetune={"epochs": 1}))
    monkeypatch.setenv("TRIGGERCTL_CACHE", str(tmp_path / "file" / "cache"))
    (tmp_path / "file").write_text("not a folder")
    assert numbers(run(make_experiment("here", finetune={"epochs": 1}))) == numbers(whole)


def test_numbers_that_are_none_come_back_as_they_were() -> None:
    nan, infinity = float("nan"), float("-inf")
    found = Measured(
        {"outcome": SetEvaluation(rows=1, loss=nan, loss_tokens=3)},
        {"outcome": {"row": [3], "verdict": [True], "log_probability": [infinity], "loss": [0.1 + 0.2]}},
        tokens=17,
        padded=20,
    )

    def compute() -> Any:
        return found.document()

    def unwanted() -> Any:
        raise AssertionError("it lies in the cache")

    Shared(Cache(), {}).document("evaluations", {"rows": 1}, compute)
    again = Measured.of(Shared(Cache(), {}).document("evaluations", {"rows": 1}, unwanted))
    assert json.dumps(again.document()) == json.dumps(found.document())


def test_tensors_come_back_bit_for_bit() -> None:
    tensors = {
        "half": torch.tensor([[1.0, float("nan")], [-0.0, 2.0**-20]], dtype=torch.float16),
        "none": torch.zeros(0, 4),
        "number": torch.tensor(0.1),
    }
    Shared(Cache(), {"model": "a"}).tensors("passes", {}, lambda: tensors)
    found = Shared(Cache(), {"model": "a"}).tensors("passes", {}, dict)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].numpy(force=True).tobytes() == tensor.numpy().tobytes()
    assert Shared(Cache(), {"model": "b"}).tensors("passes", {}, dict) == {}
