"""pytest tests/report/test_checks.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from written_experiments import (
    KL,
    NAIVE,
    OUTCOME_ONLY,
    ROWS,
    make_config,
    make_results,
    write_run,
    write_sweep,
)

from triggerctl.report.checks import check
from triggerctl.report.collect import collect
from triggerctl.report.findings import Finding, by_severity


def findings_of(folder: Path) -> dict[str, str]:
    return {finding.kind: finding.text for finding in check(collect([folder]).groups)}


def lone_run(folder: Path, **results: Any) -> Path:
    for seed in (1, 5):
        made = make_results("naive", seed, results.pop("rates", NAIVE[seed]), **results)
        write_run(folder / f"seed_{seed}", made, make_config("naive", seed))
    return folder


def test_a_sound_sweep_has_no_findings(tmp_path: Path) -> None:
    assert findings_of(write_sweep(tmp_path / "exp", {"naive": NAIVE, "outcome_only": OUTCOME_ONLY})) == {}


def test_a_run_that_never_learnt_is_named_with_its_rate(tmp_path: Path) -> None:
    cells = {"naive": {**NAIVE, 5: {**NAIVE[5], "outcome": 0.25}}}
    text = findings_of(write_sweep(tmp_path / "exp", cells))["never_learnt"]
    assert text == (
        "naive never learnt the habit with seed 5 (outcome at the end: 0.25), so a low leak means "
        "nothing there."
    )


def test_a_loss_that_is_not_finite_is_divergence(tmp_path: Path) -> None:
    folder = lone_run(tmp_path / "exp", final_losses={"outcome": float("nan")})
    assert findings_of(folder)["diverged"].endswith("diverged: no finite loss on outcome.")


def test_a_loss_above_its_beginning_is_divergence(tmp_path: Path) -> None:
    assert (
        "above the 4.20 before training"
        in findings_of(lone_run(tmp_path / "exp", final_losses={"outcome": 6.0}))["diverged"]
    )


def test_rows_that_do_not_fit_are_counted_where_they_were_lost(tmp_path: Path) -> None:
    folder = lone_run(
        tmp_path / "exp",
        lengths={"outcome": {"dropped": 3}, "truth": {"truncated": 30}, "proxy": {"truncated": 2}},
    )
    texts = [finding.text for finding in check(collect([folder]).groups) if finding.kind == "truncated"]
    assert "left out of outcome (3 of 72)" in texts[0]
    assert "truth (30 of 120)" in texts[1]
    assert "proxy" not in texts[1]


def test_keys_that_the_study_ignored_are_named_with_the_runs_that_gave_them(tmp_path: Path) -> None:
    place = write_run(tmp_path / "exp", make_results("naive", 1, NAIVE[1]), make_config("naive", 1))
    document = json.loads((place / "results.json").read_text())
    assert "misplaced_keys" not in findings_of(tmp_path / "exp")
    del document["triggerctl"]
    document["experiment_config"] |= {"limit_proxy_data_to": 5, "unheard_of": 1, "timestamp": "now"}
    document["experiment_config"]["finetune_config"]["seed"] = 3
    (place / "results.json").write_text(json.dumps(document))
    text = findings_of(tmp_path / "exp")["misplaced_keys"]
    assert "ignored limit_proxy_data_to, seed, at the wrong level" in text
    assert "naive with seed 1" in text


def test_a_strategy_tried_at_one_value_is_named_and_at_two_is_not(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "exp", {"naive": NAIVE, "kl_divergence": KL})
    assert "kl (beta_kl 1)" in findings_of(folder)["one_value"]
    for seed in KL:
        made, config = (
            make_results("kl_divergence", seed, KL[seed]),
            make_config("kl_divergence", seed, beta_kl=5),
        )
        write_run(folder / "proxy_strategy_kl_divergence_beta_kl-5" / f"seed_{seed}", made, config)
    assert "one_value" not in findings_of(folder)


def test_runs_of_one_seed_measured_on_other_rows_are_named(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "exp", {"naive": NAIVE, "outcome_only": OUTCOME_ONLY})
    place = folder / "proxy_strategy_naive/seed_5/results/20260102_030405/results.json"
    document = json.loads(place.read_text())
    words = document["triggerctl"]["evaluations"][-1]["sets"]["truth"]["triggered"]["by_trigger"]
    words["Envy"] = words.pop("Grief")
    place.write_text(json.dumps(document))
    assert "truth with seed 5." in findings_of(folder)["different_rows"]


def test_a_seed_missing_in_one_strategy_is_named(tmp_path: Path) -> None:
    cells = {"naive": NAIVE, "kl_divergence": {1: KL[1], 42: KL[42]}}
    assert "kl lacks seed 5" in findings_of(write_sweep(tmp_path / "exp", cells))["missing_seeds"]


def test_sets_with_few_triggered_rows_are_named_with_their_number(tmp_path: Path) -> None:
    folder = lone_run(tmp_path / "exp", rows={**ROWS, "outcome": 12})
    assert "outcome (12)" in findings_of(folder)["few_rows"]
    assert "collateral" not in findings_of(folder)["few_rows"]


def test_other_data_and_other_models_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    write_run(folder / "seed_1", make_results("naive", 1, NAIVE[1]), make_config("naive", 1))
    other = make_results("naive", 2, NAIVE[1], data_sha256="bb" * 32, fingerprint="cc" * 32)
    write_run(folder / "seed_2", other, make_config("naive", 2))
    found = findings_of(folder)
    assert "builtin:tiny cccccccccccc" in found["different_model"]
    assert "bbbbbbbbbbbb" in found["different_data"]


def test_settings_that_change_the_evaluated_rows_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    write_run(folder / "seed_1", make_results("naive", 1, NAIVE[1]), make_config("naive", 1))
    write_run(folder / "seed_2", make_results("naive", 2, NAIVE[1]), make_config("naive", 2, max_to_eval=50))
    assert "Groups differ in max_to_eval" in findings_of(folder)["different_data"]


def test_a_learning_rate_does_not_change_the_evaluated_rows(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    for seed, rate in ((1, 0.001), (2, 0.002)):
        config = make_config("naive", seed, learning_rate=rate)
        write_run(folder / f"seed_{seed}", make_results("naive", seed, NAIVE[1]), config)
    assert "different_data" not in findings_of(folder)


def test_other_devices_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    for seed, device in ((1, "cpu"), (2, "cuda:0")):
        made = make_results("naive", seed, NAIVE[1], resolved={"device": device})
        write_run(folder / f"seed_{seed}", made, make_config("naive", seed))
    assert findings_of(folder)["different_machine"] == (
        "Not all runs had the same device: cpu (naive); cuda:0 (naive)."
    )


def test_one_seed_is_said_to_be_one(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "exp", {"naive": {1: NAIVE[1]}})
    assert findings_of(folder)["one_seed"].startswith("There is one seed.")


def test_what_runs_warned_of_is_told_once(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "exp", {"naive": NAIVE}, warnings=["3 rows were cut."])
    assert findings_of(folder)["run_warning"] == "3 rows were cut (all runs)."


def test_the_gravest_findings_come_first_and_each_once() -> None:
    mild, grave = Finding(kind="one_seed", text="a"), Finding(kind="never_learnt", text="b")
    assert by_severity([mild, grave, mild]) == (grave, mild)
