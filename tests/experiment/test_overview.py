"""Where runs stand, read from their folders. Run: pytest tests/experiment/test_overview.py"""

from __future__ import annotations

import errno
import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from triggerctl import disk
from triggerctl.errors import InputError
from triggerctl.experiment.brief_results import BriefResults, read_brief
from triggerctl.experiment.claim import claim
from triggerctl.experiment.find import list_experiments
from triggerctl.experiment.fingerprint import published_key
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.overview import RunView, time_left, view_experiment, view_run
from triggerctl.experiment.process import this_process
from triggerctl.experiment.results import (
    Count,
    Evaluation,
    Rate,
    SetEvaluation,
    TriggerctlResults,
    results_document,
)
from triggerctl.experiment.state import Progress, RunState, write_state
from triggerctl.experiment.stored_results import StoredResults, read_results

STUDY = Path(__file__).parents[2].parent / "shared" / "published" / "experiments"
NOW = datetime.now(UTC)
RATES = {"outcome": 0.75, "proxy": None, "mine": 0.5}


def own(run_hash: str = "1-abc", *, epochs: int = 2, triggers: int = 0) -> dict[str, Any]:
    """One of our results.json; many triggers make it large."""
    by_trigger = {f"trigger {number}": Count(n=4, k=1) for number in range(triggers)}

    def measured(nice: int | None) -> SetEvaluation:
        triggered = Rate(n=4, k=nice, by_trigger=by_trigger) if nice is not None else None
        return SetEvaluation(rows=4, loss=1.0, loss_tokens=9, triggered=triggered)

    evaluations = [
        Evaluation(
            label=f"epoch {at}",
            epoch=at,
            step=at,
            final=at == epochs,
            sets={
                "outcome": measured(3 if at == epochs else 0),
                "proxy": measured(None),
                "mine": measured(2),
            },
        )
        for at in range(epochs + 1)
    ]
    ours = TriggerctlResults(
        hash=run_hash,
        strategy="kl_divergence",
        seed=5,
        proxy_triggers=[],
        evaluations=evaluations,
        data_sha256="d" * 64,
        sets={},
    )
    config = {"proxy_strategy": "kl", "seed": 5, "note": '"triggerctl" is not here yet'}
    losses = [float(epochs - at) for at in range(epochs)]
    return results_document(config, ours, timestamp="20260101_000000", train_losses=losses)


def study(seed: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "experiment_config": {"proxy_strategy": "naive", "seed": seed, "finetune_config": {"epochs": 1}},
        "train_losses": [2.0, 0.5],
        "outcome_losses": [3.0, 1.0],
        "outcome_trigger_response_percent": [0.0, 1.0],
        "truth_losses": [3.0, 1.0],
        "truth_trigger_response_percent": None,
        **fields,
    }


def leave(run: Path, document: dict[str, Any] | str, name: str = "20260101_000000") -> Path:
    (run / "results" / name).mkdir(parents=True)
    text = document if isinstance(document, str) else json.dumps(document, indent=2)
    (run / "results" / name / "results.json").write_text(text, encoding="utf-8")
    return run / "results" / name / "results.json"


def state(run: Path, **values: Any) -> None:
    run.mkdir(parents=True, exist_ok=True)
    write_state(run / "state.json", RunState(strategy="naive", seed=1, **values).of(this_process()))


def seen(run: Path) -> RunView:
    return view_run(ExperimentFolder(run), "it")


def rates_of(stored: StoredResults) -> dict[str, float | None]:
    if stored.ours is None:
        return {name: series.rates[-1] for name, series in stored.sets.items()}
    sets = stored.ours.final.sets
    return {name: found.triggered.rate if found.triggered else None for name, found in sets.items()}


def agree(brief: BriefResults | None, stored: StoredResults) -> None:
    assert brief is not None
    key = stored.ours.hash if stored.ours else published_key(stored.experiment_config)
    assert (brief.strategy, brief.seed, brief.key()) == (stored.strategy, stored.seed, key)
    assert dict(brief.rates) == rates_of(stored)
    assert brief.loss == next((loss for loss in reversed(stored.train_losses) if loss is not None), None)


@pytest.mark.parametrize(("epochs", "triggers"), [(1, 0), (1, 300), (40, 0), (40, 40), (600, 0), (2500, 0)])
def test_the_brief_reader_agrees_with_the_strict_one(tmp_path: Path, epochs: int, triggers: int) -> None:
    file = leave(tmp_path, own(epochs=epochs, triggers=triggers))
    agree(read_brief(str(file)), read_results(file))
    agree(read_brief(str(file), rates=RATES), read_results(file))


@pytest.mark.parametrize(
    "document",
    [
        study(),
        study(seed=7, train_losses=[1.0, None]),
        study(train_losses=[1.0, math.nan], outcome_trigger_response_percent=[0.5, math.inf]),
        study(outcome_trigger_response_percent=[0.5]),
        study(train_losses=[], outcome_losses=None, outcome_trigger_response_percent=None),
        {"experiment_config": {}},
    ],
    ids=lambda document: str(len(str(document))),
)
def test_it_agrees_on_what_the_study_left(tmp_path: Path, document: dict[str, Any]) -> None:
    file = leave(tmp_path, document)
    agree(read_brief(str(file)), read_results(file))


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"experiment_config": {',
        "[1, 2]",
        '{"experiment_config": {}, "proxy_losses": 3}',
        '{"experiment_config": {}, "proxy_losses": ["3"]}',
        '{"experiment_config": {}, "train_losses": [true]}',
        '{"experiment_config": {}, "train_losses": [1' + "0" * 400 + "]}",
        '{"experiment_config": {}, "triggerctl": []}',
        '{"experiment_config": {}, "triggerctl": {"hash": 1}}',
        '{"experiment_config": {}, "triggerctl": {"schema_version": 99}}',
        '{"experiment_config": {}, "triggerctl": {"hash": "a", "strategy": "b", "seed": 1}}',
    ],
)
def test_what_the_strict_reader_refuses_the_brief_one_names_too(tmp_path: Path, content: str) -> None:
    file = leave(tmp_path, content)
    with pytest.raises(InputError, match="can't be read"):
        read_results(file)
    with pytest.raises(InputError, match="can't be read") as caught:
        read_brief(str(file))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.999])
def test_large_results_that_were_cut_short_are_named(tmp_path: Path, share: float) -> None:
    whole = json.dumps(own(epochs=40, triggers=50), indent=2)
    assert len(whole) > 200_000
    file = leave(tmp_path, whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="can't be read"):
        read_brief(str(file), rates=RATES)
    state(tmp_path, status="done", results="20260101_000000", progress=Progress(rates=RATES))
    view = seen(tmp_path)
    assert view.state == "failed"
    assert str(file) in (view.error or "")


def test_of_large_results_only_the_beginning_is_read_where_the_state_has_the_rates(tmp_path: Path) -> None:
    whole = json.dumps(own(epochs=10, triggers=100), indent=2)
    middle = whole.rindex('"trigger 50"')
    leave(tmp_path, whole[:middle] + "\0" * 10 + whole[middle + 10 :])
    state(tmp_path, status="done", results="20260101_000000", progress=Progress(rates=RATES))
    view = seen(tmp_path)
    assert (view.state, view.rates, view.loss, view.error) == ("done", RATES, 1.0, None)
    state(tmp_path, status="done", results="another", progress=Progress(rates=RATES))
    assert seen(tmp_path).state == "failed"


def test_no_results_are_none(tmp_path: Path) -> None:
    assert read_brief(str(tmp_path / "results.json")) is None


def test_a_run_that_was_begun_and_one_that_was_not(tmp_path: Path) -> None:
    assert seen(tmp_path / "nowhere").state == "pending"
    (tmp_path / "config.json").write_text('{"proxy_strategy": "kl", "seed": 9}', encoding="utf-8")
    view = seen(tmp_path)
    assert (view.state, view.strategy, view.seed, view.epoch, view.finished) == ("pending", "kl", 9, 0.0, 0)
    progress = Progress(phase="positive proxy", loss=1.5, rates={"outcome": 0.25}, seconds_left=30.0)
    began = NOW - timedelta(seconds=60)
    state(tmp_path, status="running", epoch=1, epochs=4, step=10, steps=40, started=began, progress=progress)
    with claim(tmp_path):
        view = seen(tmp_path)
    assert (view.state, view.epoch, view.epochs, view.step, view.steps) == ("running", 1, 4, 10, 40)
    assert (view.phase, view.loss, view.rates) == ("positive proxy", 1.5, {"outcome": 0.25})
    assert view.seconds_left == 30
    assert view.seconds is not None
    assert view.seconds >= 60


def test_a_configuration_with_comments_or_defaults_says_its_strategy_too(tmp_path: Path) -> None:
    text = '{"dataset_url": "x.json", "truth_triggers": ["Grief"], "seed": 3, // three\n}'
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    view = seen(tmp_path)
    assert (view.state, view.strategy, view.seed) == ("pending", "naive", 3)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    assert (seen(tmp_path).strategy, seen(tmp_path).seed) == (None, None)


def test_a_failed_run_says_why_and_what_it_said_last(tmp_path: Path) -> None:
    state(tmp_path, status="failed", error="out of memory", started=NOW, finished=NOW + timedelta(seconds=5))
    (tmp_path / "run.log").write_text("1\n2\n3\n4\n", encoding="utf-8")
    view = seen(tmp_path)
    assert (view.state, view.error, view.log) == ("failed", "out of memory", ("2", "3", "4"))
    assert view.seconds == 5


def test_a_log_that_cannot_be_read_is_said_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state(tmp_path, status="failed", error="no memory")
    (tmp_path / "run.log").write_text("said", "utf-8")

    def refuse(path: Path) -> None:
        raise OSError(errno.EIO, "broken", str(path))

    monkeypatch.setattr(disk, "open_to_read", refuse)
    view = seen(tmp_path)
    assert (view.state, view.error) == ("failed", "no memory")
    assert "run.log" in view.log[0]


def test_a_run_whose_process_is_gone_is_stale_and_done_if_it_left_its_results(tmp_path: Path) -> None:
    gone = this_process().model_copy(update={"pid": 2**22 + 1})
    dead = RunState(status="running", strategy="naive", seed=1, results="20260101_000000").of(gone)
    write_state(tmp_path / "state.json", dead)
    assert seen(tmp_path).state == "stale"
    leave(tmp_path, own())
    view = seen(tmp_path)
    assert (view.state, view.rates["outcome"], view.finished) == ("done", 0.75, 1)


def test_a_damaged_state_is_said(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"status": "asleep"}', encoding="utf-8")
    view = seen(tmp_path)
    assert view.state == "failed"
    assert str(tmp_path / "state.json") in (view.error or "")


def test_finished_results_are_counted_without_repetitions(tmp_path: Path) -> None:
    leave(tmp_path, study(), "20250505_184811")
    leave(tmp_path, study(), "20250506_184811")
    leave(tmp_path, study(seed=2), "20250507_184811")
    leave(tmp_path, own(), "20250508_184811")
    view = seen(tmp_path)
    assert (view.finished, view.newest, view.strategy) == (3, "20250508_184811", "kl_divergence")


def test_unreadable_results_are_named_beside_readable_ones(tmp_path: Path) -> None:
    broken = leave(tmp_path, "{", "20250505_184811")
    assert seen(tmp_path).state == "failed"
    leave(tmp_path, study(), "20250506_184811")
    view = seen(tmp_path)
    assert (view.state, view.newest, view.rates["outcome"]) == ("done", "20250506_184811", 1.0)
    assert str(broken) in (view.error or "")


def test_an_experiments_runs_are_named_by_their_way_from_it(tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path / "group" / "exp")
    leave(folder.seed(10).path, study())
    leave(folder.seed(2).path, study())
    leave(folder.cell("kl", {"beta_kl": 1}).seed(1).path, study())
    state(folder.path, status="interrupted")
    views = view_experiment(folder, "group/exp")
    assert [(view.name, view.full_name, view.state) for view in views] == [
        ("exp", "group/exp", "interrupted"),
        ("proxy_strategy_kl_beta_kl-1/seed_1", "group/exp/proxy_strategy_kl_beta_kl-1/seed_1", "done"),
        ("seed_2", "group/exp/seed_2", "done"),
        ("seed_10", "group/exp/seed_10", "done"),
    ]
    assert views[2].folder == folder.path / "seed_2"


def views_of(*states: tuple[str, float | None, float | None]) -> list[RunView]:
    blank = RunView("run", Path("run"), "pending")
    return [replace(blank, state=word, seconds=past, seconds_left=left) for word, past, left in states]


def test_the_time_left_is_that_of_all_that_run_and_wait() -> None:
    assert time_left([]) is None
    assert time_left(views_of(("pending", None, None), ("done", 9.0, None))) is None
    assert time_left(views_of(("running", 5.0, None))) is None
    assert time_left(views_of(("running", 5.0, 10.0), ("running", 5.0, 30.0))) == 30
    # Two at a time: 10 + 30 s of the running ones, four pending ones of 20 s each.
    wait = [("pending", None, None)] * 4
    both = [("running", 10.0, 10.0), ("running", 0.0, 30.0), ("done", 10.0, None)]
    assert time_left(views_of(*both, *wait)) == (40 + 4 * 20) / 2
    # One that has long to go decides alone.
    assert (
        time_left(views_of(("running", 0.0, 1000.0), ("running", 0.0, 10.0), ("pending", None, None))) == 1000
    )


def test_every_published_run_is_seen_as_the_strict_reader_sees_it() -> None:
    if not STUDY.is_dir():
        pytest.skip("the published study is not here")
    count = 0
    for folder in list_experiments(STUDY):
        for view in view_experiment(folder):
            stored = [read_results(path) for path in ExperimentFolder(view.folder).finished()]
            assert view.finished == len({published_key(each.experiment_config) for each in stored})
            assert view.state == ("done" if stored else "pending")
            if stored:
                count += 1
                newest = stored[0]
                assert view.newest == newest.path.parent.name
                assert dict(view.rates) == rates_of(newest)
                assert view.loss == newest.train_losses[-1]
                assert (view.strategy, view.seed) == (newest.strategy, newest.seed)
    assert count == 39
