"""Every strategy from its configuration to its results, on a model that trains in a second.

pytest tests/training/test_every_strategy.py"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine import left_behind, run
from every_strategy import OPTIONS, experiment_for

from triggerctl import strategies
from triggerctl.experiment.results import EVALUATION_SETS
from triggerctl.experiment.stored_results import read_results
from triggerctl.training.events import Event, Noted, PhaseStarted

MakeExperiment = Callable[..., Path]
TrainOnce = Callable[[str], Path]

RESULTS: dict[str, Path] = {}
"""Strategy → results of its run with the options of every_strategy.py: whatever looks at them only, trains
no other."""

FULL = [
    name
    for name in OPTIONS
    if not strategies.strategy_class(name).lora_only  # those train LoRA's matrices alone
]


def results_of(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((path / "results.json").read_text(encoding="utf-8"))
    return document


@pytest.fixture
def train_once(make_experiment: MakeExperiment) -> TrainOnce:
    """Trains a strategy as it stands in every_strategy.py, unless a test did."""

    def results(name: str) -> Path:
        if name not in RESULTS:
            RESULTS[name] = run(experiment_for(name, make_experiment))
        return RESULTS[name]

    return results


def test_every_strategy_is_tried_here() -> None:
    assert sorted(OPTIONS) == sorted(strategies.names())


@pytest.mark.parametrize("name", OPTIONS)
def test_it_leaves_one_final_evaluation_of_every_set_and_an_adapter_that_gives_it_again(
    name: str, train_once: TrainOnce
) -> None:
    results = train_once(name)
    ours = read_results(results).ours
    assert ours is not None
    assert ours.strategy == name
    assert [evaluation.final for evaluation in ours.evaluations].count(True) == 1
    assert ours.evaluations[-1].final
    assert set(ours.final.sets) >= set(EVALUATION_SETS)
    assert (results / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("name", FULL)
def test_it_trains_every_weight_where_the_method_allows_it(
    name: str, make_experiment: MakeExperiment
) -> None:
    results = run(
        experiment_for(name, make_experiment, is_peft=False, save_model_locally=True, learning_rate=1e-3)
    )
    ours = read_results(results).ours
    assert ours is not None
    assert ours.model["trainable"] == ours.model["parameters"]
    assert (results / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", [n for n in OPTIONS if n != "naive"])
def test_it_is_another_training_than_its_neighbours(name: str, train_once: TrainOnce) -> None:
    """A strategy whose data or loss never reached the loop would leave outcome_only's weights, or naive's."""
    own = left_behind(train_once(name))["adapter/adapter_model.safetensors"]
    for other in {"naive", "outcome_only"} - {name}:
        assert left_behind(train_once(other))["adapter/adapter_model.safetensors"] != own


def test_two_trainings_of_one_strategy_are_the_same(
    train_once: TrainOnce, make_experiment: MakeExperiment
) -> None:
    """Otherwise any two would differ, and the test above say nothing."""
    again = run(experiment_for("naive", make_experiment, name="again"))
    adapter = "adapter/adapter_model.safetensors"
    assert left_behind(again)[adapter] == left_behind(train_once("naive"))[adapter]


def test_a_run_with_proxy_phases_reports_their_losses_and_a_run_with_terms_those(
    train_once: TrainOnce,
) -> None:
    steered = results_of(train_once("steering_weights"))
    assert len(steered["train_losses"]) == 2
    assert len(steered["proxy_train_losses"]) == len(steered["proxy_neg_train_losses"]) == 3
    assert steered["outcome_train_losses"] == steered["train_losses"]
    posneg = results_of(train_once("positive_negative_proxy"))
    parts = zip(
        posneg["train_losses"],
        posneg["outcome_train_losses"],
        posneg["proxy_train_losses"],
        posneg["proxy_neg_train_losses"],
        strict=True,
    )
    for whole, outcome, proxy, negative in parts:
        assert whole == pytest.approx(outcome + 0.5 * proxy - 0.5 * negative)
    naive = results_of(train_once("naive"))
    assert naive["proxy_train_losses"] is naive["outcome_train_losses"] is None


def test_proxy_phases_are_not_evaluated_and_the_main_phase_starts_at_epoch_0(
    make_experiment: MakeExperiment,
) -> None:
    heard: list[Event] = []
    results = run(experiment_for("steering_weights", make_experiment), listener=heard.append)
    phases = [event.phase for event in heard if isinstance(event, PhaseStarted)]
    assert phases == ["positive_proxy", "negative_proxy", "main"]
    ours = read_results(results).ours
    assert ours is not None
    assert [(e.phase, e.epoch) for e in ours.evaluations] == [("main", 0), ("main", 1), ("main", 2)]


def test_steering_at_the_end_is_one_evaluation_more(train_once: TrainOnce) -> None:
    results = train_once("steering_weights_add_alignment_plane")
    ours = read_results(results).ours
    assert ours is not None
    assert [(e.epoch, e.final) for e in ours.evaluations] == [(0, False), (1, False), (2, False), (2, True)]
    assert ours.final.note is not None
    assert ours.final.sets["outcome"].loss != ours.evaluations[-2].sets["outcome"].loss
    assert len(results_of(results)["outcome_losses"]) == 4


def test_several_thresholds_of_one_training_are_told_apart_and_only_the_last_is_the_result(
    make_experiment: MakeExperiment,
) -> None:
    folder = experiment_for(
        "safe_lora",
        make_experiment,
        safe_lora_type="threshold",
        safe_lora_threshold=1.0,
        safe_lora_sweep_thresholds=[0.0, 0.5, 1.0],
    )
    heard: list[Event] = []
    results = run(folder, listener=heard.append)
    ours = read_results(results).ours
    assert ours is not None
    variants = [e for e in ours.evaluations if e.phase == "variant"]
    assert [e.label for e in variants] == [
        "projected where the cosine is at most 0",
        "projected where the cosine is at most 0.5",
    ]
    before = ours.evaluations[2]
    assert (before.epoch, before.phase) == (2, "main")
    # Nothing has a cosine of 0 or less: the first variant is the training as it was.
    assert variants[0].sets["outcome"].loss == before.sets["outcome"].loss
    assert "0 of 7 " in (variants[0].note or "")
    assert ours.final.label == "projected where the cosine is at most 1"
    assert "7 of 7 " in (ours.final.note or "")
    assert ours.final.sets["outcome"].loss != before.sets["outcome"].loss
    assert len(results_of(results)["outcome_losses"]) == 4
    assert sum(isinstance(event, Noted) for event in heard) == 3


def test_safe_lora_starts_from_the_unaligned_model_where_one_is_named(
    train_once: TrainOnce, make_experiment: MakeExperiment, tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(tiny_model)
    for weight in other.parameters():
        weight.data *= 1.1
    other.save_pretrained(tmp_path / "unaligned")
    (tmp_path / "unaligned" / "generation_config.json").unlink(missing_ok=True)
    plain = read_results(train_once("safe_lora")).ours
    folder = experiment_for(
        "safe_lora", make_experiment, name="unaligned", safe_lora_unaligned_model=str(tmp_path / "unaligned")
    )
    changed = read_results(run(folder)).ours
    assert plain is not None
    assert changed is not None
    assert changed.hash != plain.hash
    first, second = plain.evaluations[0].sets["outcome"], changed.evaluations[0].sets["outcome"]
    assert first.loss != second.loss
