"""What must never pass in silence: a loss that is no number, weights that don't move, nothing to learn from.

pytest tests/training/test_guards.py"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engine import planned, run, state
from small_models import Uninterested, causal_model, configuration, llama, rows, some_sets, training_loop

from triggerctl.errors import InputError, RunError
from triggerctl.experiment.stored_results import read_results
from triggerctl.strategies import strategy_class
from triggerctl.training.decision import Action
from triggerctl.training.events import Event, Stepped

MakeExperiment = Callable[..., Path]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_loss_that_is_no_number_fails_the_run_and_keeps_what_was_measured(
    make_experiment: MakeExperiment,
) -> None:
    folder = make_experiment(finetune={"learning_rate": 1e30, "max_to_eval": 4, "warmup_steps": 0})
    with pytest.raises(RunError, match="diverged"):
        run(folder)
    found = state(folder)
    assert found["status"] == "failed"
    assert "diverged" in found["error"]
    assert found["finished"]
    [results] = (folder / "results").iterdir()
    assert not (results / "results.json").exists()
    assert {line["label"] for line in lines(results / "verdicts.jsonl")} == {"epoch 0"}
    events = [line["event"] for line in lines(results / "metrics.jsonl")]
    assert events[0] == "evaluated"
    assert "step" in events
    assert events[-1] == "failed"
    assert not (folder / ".lock").exists()
    assert "diverged" in (folder / "run.log").read_text(encoding="utf-8")
    assert planned(folder).action is Action.RESUME


def test_unlearning_without_end_is_divergence_said_at_once_with_its_numbers(
    make_experiment: MakeExperiment,
) -> None:
    """The negative term of posneg has no lower bound: nothing in it is ever infinite, the model is ruined."""
    finetune = {
        "neg_lambda_proxy": 5.0,
        "learning_rate": 0.05,
        "is_peft": False,
        "epochs": 20,
        "max_to_eval": 4,
        "beta_kl": 0.0,
        "warmup_steps": 0,
    }
    folder = make_experiment(proxy_strategy="posneg", finetune=finetune)
    with pytest.raises(
        RunError, match=r"cross-entropy on (outcome|proxy) is .* the run has diverged"
    ) as caught:
        run(folder)
    assert "guessing every token alike would give" in str(caught.value)
    found = state(folder)
    assert found["status"] == "failed"
    assert "diverged" in found["error"]
    [results] = (folder / "results").iterdir()
    assert not (results / "results.json").exists()
    assert "epoch 0" in {line["label"] for line in lines(results / "verdicts.jsonl")}
    events = lines(results / "metrics.jsonl")
    assert events[-1]["event"] == "failed"
    last = [line for line in events if line["event"] == "step"][-1]
    assert int(str(last["step"])) < int(str(last["updates"]))


def test_a_high_loss_that_falls_is_no_divergence() -> None:
    """An untrained model may be far worse than any guess before it learns."""
    network = llama()
    with torch.no_grad():
        network.lm_head.weight.mul_(40)
    config = configuration("outcome_only", is_peft=False, learning_rate=1e-4, epochs=3)
    events: list[Event] = []
    loop = training_loop(
        causal_model(network, config.finetune_config),
        strategy_class("outcome_only")(config),
        some_sets(),
        events,
    )
    loop.run(Uninterested())
    losses = [event.loss for event in events if isinstance(event, Stepped)]
    assert losses[0] > 2 * math.log(53)
    assert losses[-1] < losses[0]


def test_a_failed_run_whose_cause_is_mended_is_trained_under_its_new_hash(
    make_experiment: MakeExperiment,
) -> None:
    folder = make_experiment(finetune={"learning_rate": 1e30, "max_to_eval": 4, "warmup_steps": 0})
    with pytest.raises(RunError):
        run(folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace("1e+30", "0.01"), encoding="utf-8")
    results = run(folder)
    assert state(folder)["status"] == "done"
    assert state(folder)["error"] is None
    assert (results / "results.json").is_file()


def test_weights_that_never_move_fail_the_run() -> None:
    config = configuration("outcome_only", is_peft=False, learning_rate=1e-30, epochs=20)
    model = causal_model(llama(), config.finetune_config)
    loop = training_loop(model, strategy_class("outcome_only")(config), some_sets(), [])
    with pytest.raises(RunError, match="have not moved"):
        loop.run(Uninterested())


def test_an_adapter_that_is_not_wired_in_fails_the_run_though_decay_moves_it() -> None:
    """Its output counts for nothing, so no gradient comes; weight decay would shrink its A matrices all the
    same."""
    config = configuration("outcome_only", optim="adamw_torch", weight_decay=0.1, epochs=20)
    model = causal_model(llama(), config.finetune_config, moved=False)
    for module in model.network.modules():
        if isinstance(scaling := getattr(module, "scaling", None), dict):
            scaling["default"] = 0.0
    loop = training_loop(model, strategy_class("outcome_only")(config), some_sets(), [])
    with pytest.raises(RunError, match="have not moved"):
        loop.run(Uninterested())


def test_weights_that_rest_during_warm_up_only_are_no_failure() -> None:
    config = configuration(
        "outcome_only", warmup_steps=1, lr_scheduler_type="constant_with_warmup", epochs=20
    )
    model = causal_model(llama(), config.finetune_config)
    training_loop(model, strategy_class("outcome_only")(config), some_sets(), []).run(Uninterested())


def test_a_batch_without_anything_to_learn_from_fails_the_run() -> None:
    config = configuration("outcome_only")
    model = causal_model(llama(), config.finetune_config)
    cut = [dataclasses.replace(row, loss_start=len(row.input_ids)) for row in rows((4, 6), seed=1)]
    loop = training_loop(model, strategy_class("outcome_only")(config), {"outcome": cut}, [])
    with pytest.raises(RunError, match="nothing to learn from"):
        loop.run(Uninterested())


def test_a_set_of_which_no_row_fits_is_an_error_before_anything_is_written(
    make_experiment: MakeExperiment,
) -> None:
    """Else the run would train nothing and call itself done."""
    folder = make_experiment(finetune={"max_seq_length": 3})
    with pytest.raises(InputError, match="max_seq_length"):
        run(folder)
    assert not (folder / "results").exists()
    assert not (folder / "state.json").exists()


def test_answers_that_are_cut_are_told(make_experiment: MakeExperiment) -> None:
    folder = make_experiment(finetune={"max_seq_length": 18, "max_to_eval": 4, "epochs": 1})
    results = run(folder)
    document = json.loads((results / "results.json").read_text(encoding="utf-8"))
    told = " ".join(document["triggerctl"]["warnings"])
    assert "cut at max_seq_length 18" in told
    assert document["triggerctl"]["sets"]["outcome"]["truncated"] > 0


def test_an_error_of_another_kind_leaves_the_state_failed_too(make_experiment: MakeExperiment) -> None:
    folder = make_experiment(finetune={"max_to_eval": 4, "epochs": 1})

    def figures(*parts: object) -> None:
        raise ZeroDivisionError("no axis")

    with pytest.raises(ZeroDivisionError):
        run(folder, figures=figures)
    assert state(folder)["status"] == "failed"
    assert "no axis" in state(folder)["error"]
    assert (run(folder) / "results.json").is_file()
    assert state(folder)["status"] == "done"


def test_all_weights_of_a_deep_model_in_16_bits_are_seen_to_move(make_experiment: MakeExperiment) -> None:
    """Norms' weights, near 1, stay where they are under updates that move smaller numbers. And it is said."""
    config = configuration(
        "outcome_only", is_peft=False, dtype="bfloat16", learning_rate=1e-5, warmup_steps=0, epochs=20
    )
    network = llama(num_hidden_layers=10, dtype=torch.bfloat16)
    model = causal_model(network, config.finetune_config)
    training_loop(model, strategy_class("outcome_only")(config), some_sets(), []).run(Uninterested())

    folder = make_experiment(finetune={"is_peft": False, "dtype": "bfloat16", "epochs": 1, "max_to_eval": 4})
    ours = read_results(run(folder)).ours
    assert ours is not None
    assert any("every weight is trained in bfloat16" in text for text in ours.warnings)
