"""pytest tests/experiment/test_stored_results.py: results.json, ours and the study's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from triggerctl.errors import InputError
from triggerctl.experiment.atomic import write_json_atomic
from triggerctl.experiment.brief_results import read_brief
from triggerctl.experiment.find import list_experiments
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.overview import view_experiment, view_run
from triggerctl.experiment.results import (
    SCHEMA_VERSION,
    STUDY_NAMES,
    Count,
    Evaluation,
    Rate,
    SetData,
    SetEvaluation,
    TriggerctlResults,
    results_document,
)
from triggerctl.experiment.stored_results import read_results

SHARED = Path(__file__).parents[2].parent / "shared" / "published" / "experiments"

STUDY_FIELDS = [
    "experiment_config",
    "train_losses",
    *(f"{name}_{field}" for name in STUDY_NAMES.values() for field in ("losses", "trigger_response_percent")),
    "timestamp",
    "proxy_train_losses",
    "outcome_train_losses",
    "proxy_neg_train_losses",
]


def study_file(folder: Path, timestamp: str, *, seed: int = 1, rates: Sequence[float] = (0.0, 0.5)) -> None:
    """A results.json as the study wrote it: no counts, no `triggerctl`, truth_no_proxy_labels always null."""
    document: dict[str, Any] = {
        "experiment_config": {
            "finetune_config": {
                "model": "google/gemma-2-2b-it",
                "finetuned_model_id": f"someone/model_{timestamp}",
                "epochs": 1,
                "lambda_2": 0.0,
            },
            "experiment_name": "emotions",
            "proxy_strategy": "naive",
            "seed": seed,
            "proxy_triggers": ["Anger"],
            "timestamp": timestamp,
        },
        "train_losses": [5.25],
        "timestamp": timestamp,
    }
    for name in ("proxy", "outcome", "truth", "collateral"):
        document[f"{name}_losses"] = [5.5, 1.5]
        document[f"{name}_trigger_response_percent"] = list(rates)
    document["truth_no_proxy_labels_losses"] = None
    document["truth_no_proxy_labels_trigger_response_percent"] = None
    (folder / "results" / timestamp).mkdir(parents=True)
    (folder / "results" / timestamp / "results.json").write_text(json.dumps(document))


def evaluation(label: str, epoch: float, *, final: bool = False, phase: str = "main") -> Evaluation:
    def measured(rows: int, nice: int) -> SetEvaluation:
        return SetEvaluation(rows=rows, loss=2.0 - epoch, loss_tokens=90, triggered=Rate(n=rows, k=nice))

    sets = {
        "outcome": measured(8, int(8 * epoch)),
        "truth": measured(4, 1),
        "proxy": SetEvaluation(rows=3, loss=1.0, loss_tokens=9),
        "mine": measured(2, 1),
    }
    return Evaluation(label=label, phase=phase, epoch=epoch, step=int(epoch * 10), final=final, sets=sets)


def own_results(run_hash: str = "1-abc") -> TriggerctlResults:
    return TriggerctlResults(
        hash=run_hash,
        strategy="kl_divergence",
        seed=5,
        proxy_triggers=["Anger"],
        evaluations=[
            evaluation("epoch 0", 0),
            evaluation("threshold 0.3", 1, phase="threshold"),
            evaluation("epoch 1", 1, final=True),
        ],
        data_sha256="d" * 64,
        sets={"outcome": SetData(rows=80, triggered=40, train=72, evaluated=8)},
    )


def own_document(run_hash: str = "1-abc") -> dict[str, Any]:
    config = {"proxy_strategy": "kl", "seed": 5, "proxy_triggers": None, "finetune_config": {"epochs": 1}}
    return results_document(
        config,
        own_results(run_hash),
        timestamp="20260101_000000",
        train_losses=[1.25],
        proxy_train_losses=[0.5],
    )


def test_every_field_of_the_study_is_written_in_its_shape() -> None:
    document = own_document()
    assert set(document) == {*STUDY_FIELDS, "triggerctl"}
    assert document["outcome_losses"] == [2.0, 1.0]
    assert document["outcome_trigger_response_percent"] == [0.0, 1.0]
    assert document["proxy_losses"] == [1.0, 1.0]
    assert document["proxy_trigger_response_percent"] is None
    assert document["truth_no_proxy_labels_losses"] is None
    assert document["proxy_train_losses"] == [0.5]
    assert document["outcome_train_losses"] is None
    config = document["experiment_config"]
    assert config["finetune_config"] == {"epochs": 1}
    assert config["proxy_strategy"] == "kl_divergence"
    assert config["proxy_triggers"] == ["Anger"]
    assert config["timestamp"] == document["timestamp"] == "20260101_000000"
    assert document["triggerctl"]["schema_version"] == SCHEMA_VERSION


def test_our_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "results.json", own_document())
    stored = read_results(tmp_path)
    assert stored.ours is not None
    assert stored.ours.evaluations == own_results().evaluations
    assert stored.ours.final.label == "epoch 1"
    assert stored.sets["outcome"].rates == (0.0, 1.0)
    assert stored.sets["proxy"].rates == (None, None)
    assert "truth_minus_proxy" not in stored.sets
    assert (stored.strategy, stored.seed, stored.proxy_triggers) == ("kl_divergence", 5, ("Anger",))
    assert stored.requested["proxy_triggers"] is None
    assert stored.experiment_config["proxy_triggers"] == ["Anger"]


def test_a_loss_that_diverged_is_read_as_not_a_number_of_any_kind(tmp_path: Path) -> None:
    document = own_document()
    document["train_losses"] = [1.0, float("nan")]
    write_json_atomic(tmp_path / "results.json", document)
    assert read_results(tmp_path).train_losses == (1.0, None)
    (tmp_path / "results.json").write_text(json.dumps(document))
    assert read_results(tmp_path).train_losses == (1.0, None)


def test_a_file_of_the_study_is_read_without_counts(tmp_path: Path) -> None:
    study_file(tmp_path, "20250505_184811", seed=42)
    stored = read_results(tmp_path / "results" / "20250505_184811")
    assert stored.ours is None
    assert stored.sets["truth"].rates == (0.0, 0.5)
    assert "truth_minus_proxy" not in stored.sets
    assert (stored.strategy, stored.seed, stored.proxy_triggers) == ("naive", 42, ("Anger",))
    assert stored.proxy_train_losses is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"experiment_config": {', "EOF while parsing"),
        ("[1, 2]", "no experiment_config"),
        ('{"experiment_config": {}, "proxy_losses": 3}', "proxy_losses"),
        ('{"experiment_config": {}, "proxy_losses": ["3"]}', "not a number"),
        ('{"experiment_config": {}, "train_losses": [1' + "0" * 400 + "]}", "train_losses: int too large"),
        ('{"experiment_config": {}, "triggerctl": {"hash": 1}}', "triggerctl.hash"),
        ('{"experiment_config": {}, "triggerctl": {"schema_version": 99}}', "later triggerctl"),
        ("\udcff", "expected value at line 1"),
        ('{"experiment_config": {}, "triggerctl": {"schema_version": "2"}}', "'2' is not a number"),
    ],
)
def test_results_that_cannot_be_read_are_named_with_the_reason(
    tmp_path: Path, content: str, why: str
) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=why) as caught:
        read_results(path)
    assert str(path) in str(caught.value)


def test_results_of_the_study_whose_configuration_holds_no_number_have_an_identity(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"experiment_config": {"finetune_config": {"learning_rate": NaN}}}', encoding="utf-8")
    brief = read_brief(str(path))
    assert brief is not None
    assert brief.key().startswith("study-")


def test_results_of_one_hash_are_one_run_and_the_newest_come_first(tmp_path: Path) -> None:
    study_file(tmp_path, "20250505_184811", rates=(0.0, 0.0))
    study_file(tmp_path, "20250506_224633", rates=(0.0, 0.8))
    study_file(tmp_path, "20250507_000000", seed=2)
    for name, run_hash in (("20260101_000000", "1-abc"), ("20260101_000000_2", "1-abc")):
        (tmp_path / "results" / name).mkdir()
        write_json_atomic(tmp_path / "results" / name / "results.json", own_document(run_hash))
    names_by_run: dict[str, list[str]] = {}
    for path in ExperimentFolder(tmp_path).finished():
        brief = read_brief(str(path / "results.json"))
        assert brief is not None
        names_by_run.setdefault(brief.key(), []).append(path.name)
    assert list(names_by_run.values()) == [
        ["20260101_000000_2", "20260101_000000"],
        ["20250507_000000"],
        ["20250506_224633", "20250505_184811"],
    ]
    assert next(iter(names_by_run)) == "1-abc"
    view = view_run(ExperimentFolder(tmp_path), "it")
    assert (view.finished, view.newest) == (3, "20260101_000000_2")


def test_one_unreadable_file_does_not_hide_the_others(tmp_path: Path) -> None:
    study_file(tmp_path / "seed_1", "20250505_184811")
    study_file(tmp_path / "seed_2", "20250505_184811", seed=2)
    broken = tmp_path / "seed_1" / "results" / "20250505_184811" / "results.json"
    broken.write_text("{")
    views = view_experiment(ExperimentFolder(tmp_path))
    assert [(view.name, view.state, view.seed) for view in views] == [
        ("seed_1", "failed", None),
        ("seed_2", "done", 2),
    ]
    assert str(broken) in (views[0].error or "")
    assert views[1].error is None


def test_all_published_results_are_read() -> None:
    if not SHARED.is_dir():
        pytest.skip("the published study is not here")
    files = sorted(SHARED.rglob("results.json"))
    assert len(files) == 53
    for file in files:
        stored = read_results(file)
        epochs = len(stored.train_losses)
        assert set(stored.sets) == {"outcome", "proxy", "collateral", "truth"}
        for series in stored.sets.values():
            assert len(series.losses) == len(series.rates) == epochs + 1
            assert all(rate is not None and 0 <= rate <= 1 for rate in series.rates)
    views = [view for experiment in list_experiments(SHARED) for view in view_experiment(experiment)]
    assert all(view.error is None for view in views)
    phases = [file for file in files if file.parent.parent.name in ("positive_proxy", "negative_proxy")]
    finished = sum(len(ExperimentFolder(view.folder).finished()) for view in views)
    assert finished + len(phases) == 53
    # Three of them repeat an older run.
    assert sum(view.finished for view in views) == finished - 3


@pytest.mark.parametrize("final", [0, 2])
def test_results_without_exactly_one_final_evaluation_are_refused(tmp_path: Path, final: int) -> None:
    document = written(final_evaluations=final)
    (tmp_path / "results.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="exactly one must be final"):
        read_results(tmp_path)


def test_more_hits_than_rows_are_no_count() -> None:
    with pytest.raises(ValueError, match="3 of 2 rows"):
        Count(n=2, k=3)


def test_words_before_the_end_can_be_passed_over(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(written(final_evaluations=1)))
    whole, quick = read_results(tmp_path), read_results(tmp_path, words_at_the_end_only=True)
    assert whole.ours is not None
    assert quick.ours is not None
    first = whole.ours.evaluations[0].sets["truth"].triggered
    assert first is not None
    assert list(first.by_trigger) == ["Grief"]
    told = quick.ours.evaluations[0].sets["truth"].triggered
    assert told is not None
    assert told == first.model_copy(update={"by_trigger": {}})
    assert quick.ours.final == whole.ours.final


def written(*, final_evaluations: int) -> dict[str, Any]:
    """A document of ours with two evaluations, so many of them final."""
    rate = Rate(n=4, k=1, by_trigger={"Grief": Count(n=4, k=1)})
    evaluations = [
        Evaluation(
            label=f"epoch {epoch}",
            epoch=epoch,
            step=epoch,
            final=epoch >= 2 - final_evaluations,
            sets={"truth": SetEvaluation(rows=4, loss=1.0, loss_tokens=9, triggered=rate)},
        )
        for epoch in (0, 1)
    ]
    ours = TriggerctlResults(
        hash="1-a",
        strategy="naive",
        seed=1,
        proxy_triggers=[],
        evaluations=evaluations,
        data_sha256="0",
        sets={},
    )
    return results_document({"seed": 1}, ours, timestamp="20250505_184811", train_losses=[1.0])
