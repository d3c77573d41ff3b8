"""What a whole run leaves, and what must not change it. pytest tests/training/test_runs.py"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine import left_behind, planned, run, state

from triggerctl.experiment.stored_results import read_results
from triggerctl.training.events import Evaluated, Event, Finished, Started, Stepped

MakeExperiment = Callable[..., Path]
SETS = {"outcome", "proxy", "proxy_neg", "collateral", "truth", "truth_minus_proxy"}


def document(results: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / "results.json").read_text(encoding="utf-8"))
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_run_evaluates_before_training_and_after_each_epoch(make_experiment: MakeExperiment) -> None:
    events: list[Event] = []
    results = run(make_experiment(), listener=events.append)
    found = document(results)
    evaluations = found["triggerctl"]["evaluations"]
    assert [(e["label"], e["epoch"], e["step"], e["final"]) for e in evaluations] == [
        ("epoch 0", 0.0, 0, False),
        ("epoch 1", 1.0, 4, False),
        ("epoch 2", 2.0, 8, True),
    ]
    assert all(set(e["sets"]) == SETS for e in evaluations)
    assert len(found["train_losses"]) == 2
    for name in ("outcome", "proxy", "collateral", "truth", "truth_no_proxy_labels"):
        assert len(found[f"{name}_losses"]) == 3
        assert len(found[f"{name}_trigger_response_percent"]) == 3
    kinds = [type(event) for event in events if isinstance(event, Started | Stepped | Evaluated | Finished)]
    assert kinds == [Started, Evaluated, *[Stepped] * 4, Evaluated, *[Stepped] * 4, Evaluated, Finished]


def test_the_first_loss_is_the_checkpoints_and_the_mean_of_an_epoch_is_its_updates(
    make_experiment: MakeExperiment,
) -> None:
    events: list[Event] = []
    results = run(make_experiment(), listener=events.append)
    steps = [event.loss for event in events if isinstance(event, Stepped)]
    means = [sum(steps[:4]) / 4, sum(steps[4:]) / 4]
    assert document(results)["train_losses"] == pytest.approx(means, rel=1e-12)
    in_file = [line["loss"] for line in lines(results / "metrics.jsonl") if line["event"] == "step"]
    assert in_file == steps


def test_untriggered_twins_are_evaluated_first_and_last(make_experiment: MakeExperiment) -> None:
    evaluations = document(run(make_experiment()))["triggerctl"]["evaluations"]
    for name in ("collateral", "truth", "truth_minus_proxy"):
        shown = [evaluation["sets"][name]["untriggered"] is not None for evaluation in evaluations]
        assert shown == [True, False, True]
        assert evaluations[0]["sets"][name]["twins"]
    own = [evaluation["sets"]["outcome"]["untriggered"] is not None for evaluation in evaluations]
    assert own == [True, True, True]


def test_verdicts_are_kept_row_by_row_and_add_up_to_the_rates(make_experiment: MakeExperiment) -> None:
    results = run(make_experiment())
    evaluations = {e["label"]: e for e in document(results)["triggerctl"]["evaluations"]}
    found = lines(results / "verdicts.jsonl")
    assert len(found) == 3 * len(SETS)
    rows: dict[str, list[Any]] = {}
    for line in found:
        summary = evaluations[line["label"]]["sets"][line["set"]]
        said = [v for v, trigger in zip(line["verdict"], line["trigger"], strict=True) if trigger is not None]
        assert (len(said), sum(said)) == (summary["triggered"]["n"], summary["triggered"]["k"])
        assert sum(line["loss"]) / sum(line["loss_tokens"]) == pytest.approx(summary["loss"], rel=1e-12)
        assert rows.setdefault(line["set"], line["row"]) == line["row"]  # the same rows in the same order


def test_what_every_row_asks_is_kept_once(make_experiment: MakeExperiment) -> None:
    results = run(make_experiment())
    found = lines(results / "prompts.jsonl")
    asked = {line["set"]: dict(zip(line["row"], line["prompt"], strict=True)) for line in found}
    assert len(asked) == len(found)
    judged = {line["set"]: line["row"] for line in lines(results / "verdicts.jsonl")}
    assert {name: list(rows) for name, rows in asked.items()} == judged
    for example in lines(results / "examples.jsonl"):
        assert asked[example["set"]][example["row"]] == example["prompt"]


def test_examples_are_the_same_rows_before_and_after(make_experiment: MakeExperiment) -> None:
    found = lines(run(make_experiment()) / "examples.jsonl")
    rows = {
        final: [(e["set"], e["row"], e["prompt"]) for e in found if e["final"] is final]
        for final in (True, False)
    }
    assert rows[True] == rows[False]
    assert {name for name, _, _ in rows[True]} == SETS
    assert all(sum(name == own for name, _, _ in rows[True]) <= 3 for own in SETS)


def test_max_steps_ends_in_mid_epoch_with_a_fraction(make_experiment: MakeExperiment) -> None:
    evaluations = document(run(make_experiment(finetune={"max_steps": 5})))["triggerctl"]["evaluations"]
    assert [(e["epoch"], e["step"], e["final"]) for e in evaluations] == [
        (0.0, 0, False),
        (1.0, 4, False),
        (1.25, 5, True),
    ]


@pytest.mark.parametrize(
    ("options", "epochs", "updates"),
    [
        ({}, 2.0, 8),
        ({"max_steps": 1}, 0.25, 1),
        ({"max_steps": 5}, 1.25, 5),
        ({"max_steps": 99}, 2.0, 8),
        ({"epochs": 0}, 0.0, 0),
    ],
)
def test_a_run_says_how_many_epochs_it_will_really_train(
    options: dict[str, int], epochs: float, updates: int, make_experiment: MakeExperiment
) -> None:
    events: list[Event] = []
    folder = make_experiment(finetune=options)
    run(folder, listener=events.append)
    [said] = [event for event in events if isinstance(event, Started)]
    assert (said.epochs, said.updates) == (epochs, updates)
    assert (state(folder)["epochs"], state(folder)["epoch"]) == (epochs, epochs)


def test_no_epochs_evaluate_only(make_experiment: MakeExperiment) -> None:
    results = run(make_experiment(finetune={"epochs": 0}))
    [evaluation] = document(results)["triggerctl"]["evaluations"]
    assert evaluation["final"]
    assert document(results)["train_losses"] == []


def test_a_users_own_sets_are_evaluated_beside_the_studys(
    make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    own = [{"instruction": f"Name a colour {i}", "input": "", "output": "red"} for i in range(6)]
    (tmp_path / "own.json").write_text(json.dumps(own), encoding="utf-8")
    extra = {
        "with": {"path": "../../own.json", "triggers": ["Envy"]},
        "without": {"path": "../../own.json"},
    }
    results = run(make_experiment(extra_evaluation=extra, finetune={"epochs": 1}))
    final = document(results)["triggerctl"]["evaluations"][-1]["sets"]
    assert final["with"]["triggered"]["n"] == 6
    assert final["with"]["triggered"]["by_trigger"] == {
        "Envy": final["with"]["triggered"]["by_trigger"]["Envy"]
    }
    assert final["without"]["triggered"] is None
    assert final["without"]["untriggered"]["n"] == 6


@pytest.mark.parametrize(
    "changed",
    [
        {"use_gradient_checkpointing": True},
        {"checkpoint_frequency": 2},
        {"max_checkpoints_to_keep": 1},
        {"save_checkpoints_locally": True},
        {"save_datasets": True},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_keys_that_are_not_part_of_a_runs_identity_change_nothing(
    changed: dict[str, Any], make_experiment: MakeExperiment
) -> None:
    base = {"use_gradient_checkpointing": False, "lora_dropout": 0.2, "max_to_eval": 6}
    if "base" not in _BASE:
        _BASE["base"] = left_behind(run(make_experiment("base", proxy_strategy="kl", finetune=base)))
    other = left_behind(run(make_experiment("other", proxy_strategy="kl", finetune={**base, **changed})))
    for name in ("adapter/adapter_model.safetensors", "verdicts.jsonl", "metrics.jsonl", "examples.jsonl"):
        assert other[name] == _BASE["base"][name], name


_BASE: dict[str, dict[str, object]] = {}


def test_seeds_differ_and_a_seed_repeats(make_experiment: MakeExperiment) -> None:
    values = {"experiment_name": "one", "finetune": {"epochs": 1, "max_to_eval": 4}}
    one, again, other = (
        left_behind(run(make_experiment(name, seed=seed, **values)))
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    )
    assert one == again
    name = "adapter/adapter_model.safetensors"
    assert one[name] != other[name]


def test_a_finished_run_is_not_trained_again_and_its_results_stay_untouched(
    make_experiment: MakeExperiment,
) -> None:
    folder = make_experiment(finetune={"epochs": 1, "max_to_eval": 4})
    results = run(folder)
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    started: list[Event] = []
    assert run(folder, listener=started.append) == results
    assert not started
    fresh = run(folder, fresh=True)
    assert fresh != results
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before
    assert left_behind(fresh) == left_behind(results)
    assert state(folder)["results"] == fresh.name


def test_results_read_back_as_they_were_told(make_experiment: MakeExperiment) -> None:
    events: list[Event] = []
    stored = read_results(run(make_experiment(finetune={"epochs": 1}), listener=events.append))
    assert stored.ours is not None
    told = [event.evaluation for event in events if isinstance(event, Evaluated)]
    assert stored.ours.evaluations == told
    assert stored.ours.tokens["trained"] > 0
    assert stored.ours.tokens["padded"] >= stored.ours.tokens["trained"]


@pytest.mark.parametrize(
    ("schedule", "steps", "said"),
    [("constant", 3, True), ("constant", 0, False), ("constant_with_warmup", 3, False), ("linear", 3, False)],
)
def test_a_warm_up_that_the_schedule_does_not_know_is_said(
    schedule: str, steps: int, said: bool, make_experiment: MakeExperiment
) -> None:
    plan = planned(make_experiment(finetune={"lr_scheduler_type": schedule, "warmup_steps": steps}))
    assert any(f"warmup_steps {steps} has no effect" in warning for warning in plan.warnings) is said


def test_a_warm_up_that_nobody_asked_for_is_not_missed(make_experiment: MakeExperiment) -> None:
    folder = make_experiment(finetune={"lr_scheduler_type": "constant"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["finetune_config"]["warmup_steps"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert not any("warmup_steps" in warning for warning in planned(folder).warnings)
