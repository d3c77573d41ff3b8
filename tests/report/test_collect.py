"""pytest tests/report/test_collect.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from written_experiments import KL, NAIVE, make_config, make_results, write_run, write_sweep

from triggerctl.report.checks import check
from triggerctl.report.collect import collect

SHARED = Path(__file__).parents[2].parent / "shared" / "published" / "experiments"


def test_runs_of_a_sweep_are_grouped_by_strategy_over_their_seeds(tmp_path: Path) -> None:
    found = collect([write_sweep(tmp_path / "exp", {"naive": NAIVE, "kl_divergence": KL})])
    assert [(group.label, group.seeds) for group in found.groups] == [
        ("kl", (1, 5, 42)),
        ("naive", (1, 5, 42)),
    ]
    assert found.findings == ()
    run = found.groups[1].runs[2]
    assert run.sets["truth_minus_proxy"].count is not None
    assert run.sets["truth_minus_proxy"].count.k == 78
    assert run.rate("truth_minus_proxy") == 0.65
    assert run.sets["collateral"].false_positives is not None
    assert run.results == "proxy_strategy_naive/seed_42/results/20260102_030405"


def test_a_strategys_parameter_sets_are_groups_named_by_what_differs(tmp_path: Path) -> None:
    for beta in (0.1, 10.0):
        for seed in (1, 5):
            write_run(
                tmp_path / "exp" / f"proxy_strategy_kl_divergence_beta_kl-{beta}" / f"seed_{seed}",
                make_results("kl_divergence", seed, KL[seed]),
                make_config("kl_divergence", seed, beta_kl=beta),
            )
    found = collect([tmp_path / "exp"])
    assert [group.label for group in found.groups] == ["kl (beta_kl 0.1)", "kl (beta_kl 10)"]
    assert [group.parameters for group in found.groups] == [
        {"finetune_config.beta_kl": 0.1},
        {"finetune_config.beta_kl": 10},
    ]


def test_values_that_part_late_make_groups_with_labels_of_their_own(tmp_path: Path) -> None:
    for seed, ending in enumerate("ab"):
        config = {**make_config("naive", seed), "nice_responses": ["q" * 60 + ending]}
        write_run(tmp_path / "exp" / f"seed_{seed}", make_results("naive", seed, NAIVE[1]), config)
    labels = [group.label for group in collect([tmp_path / "exp"]).groups]
    assert len(set(labels)) == 2
    assert all("qqq…" in label and len(label) < 80 for label in labels)


def test_addresses_of_data_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    for seed, name in ((1, "one"), (2, "two")):
        config = {**make_config("naive", seed), "dataset_url": f"https://data.example/{name}.json"}
        place = write_run(tmp_path / "exp" / f"seed_{seed}", make_results("naive", seed, NAIVE[1]), config)
        document = json.loads((place / "results.json").read_text())
        del document["triggerctl"]
        (place / "results.json").write_text(json.dumps(document))
    assert [group.detail for group in collect([tmp_path / "exp"]).groups] == [
        "data https://data.example/one.json",
        "data https://data.example/two.json",
    ]


def test_options_that_a_strategy_does_not_read_make_no_groups(tmp_path: Path) -> None:
    for seed, beta in ((1, 0.1), (5, 10.0)):
        config = make_config("naive", seed, beta_kl=beta)
        write_run(tmp_path / "exp" / f"seed_{seed}", make_results("naive", seed, NAIVE[seed]), config)
    assert [group.seeds for group in collect([tmp_path / "exp"]).groups] == [(1, 5)]


def test_the_newest_results_of_a_run_count_and_older_ones_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    old, new = make_results("naive", 1, NAIVE[1]), make_results("naive", 1, NAIVE[42])
    write_run(folder, old, make_config("naive", 1), timestamp="20250101_000000")
    write_run(folder, new, make_config("naive", 1), timestamp="20250101_000000_2")
    found = collect([folder])
    assert [run.results for run in found.runs] == ["results/20250101_000000_2"]
    assert found.runs[0].rate("truth_minus_proxy") == 0.65
    assert found.runs[0].older == ("results/20250101_000000",)
    assert [finding.kind for finding in found.findings] == ["older_results"]


def test_a_run_repeated_with_the_same_outcome_is_no_warning(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    results, config = make_results("naive", 1, NAIVE[1]), make_config("naive", 1)
    write_run(folder, results, config, timestamp="20250101_000000")
    write_run(folder / "proxy_strategy_naive" / "seed_1", results, config, timestamp="20250102_000000")
    found = collect([folder])
    assert len(found.runs) == 1
    assert found.runs[0].older == ("results/20250101_000000",)
    assert found.findings == ()


def test_a_run_repeated_under_another_hash_is_named_though_it_ended_alike(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    results, config = make_results("naive", 1, NAIVE[1]), make_config("naive", 1)
    write_run(folder, results, config, timestamp="20250101_000000")
    write_run(folder, results.model_copy(update={"hash": "2-naive-1"}), config, timestamp="20250102_000000")
    assert [finding.kind for finding in collect([folder]).findings] == ["older_results"]


def test_results_with_another_configuration_are_another_run(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    write_run(
        folder, make_results("naive", 1, NAIVE[1]), make_config("naive", 1), timestamp="20250101_000000"
    )
    changed = make_config("naive", 1, learning_rate=0.5)
    write_run(folder, make_results("naive", 1, NAIVE[1]), changed, timestamp="20250102_000000")
    assert [group.detail for group in collect([folder]).groups] == [
        "learning_rate 1e-05",
        "learning_rate 0.5",
    ]


def test_results_on_other_data_or_another_model_are_not_averaged(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    for seed, data, model in ((1, "aa", "m"), (2, "bb", "m"), (3, "aa", "n")):
        results = make_results("naive", seed, NAIVE[1], data_sha256=data * 32, fingerprint=model * 32)
        write_run(folder / f"seed_{seed}", results, make_config("naive", seed))
    assert sorted(group.seeds for group in collect([folder]).groups) == [(1,), (2,), (3,)]


def test_one_seed_run_with_two_models_is_two_runs_and_said_to_be(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    for model in ("aa", "bb"):
        results = make_results("naive", 1, NAIVE[1], fingerprint=model * 32)
        write_run(folder, results, make_config("naive", 1), timestamp=f"20250101_0000{model}")
    groups = collect([folder]).groups
    assert [group.seeds for group in groups] == [(1,), (1,)]
    assert "different_model" in [finding.kind for finding in check(groups)]


def test_half_a_results_file_is_named_and_the_rest_reported(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "exp", {"naive": NAIVE})
    file = folder / "proxy_strategy_naive/seed_5/results/20260102_030405/results.json"
    file.write_text(file.read_text()[: file.stat().st_size // 2])
    found = collect([folder])
    assert [group.seeds for group in found.groups] == [(1, 42)]
    assert [finding.kind for finding in found.findings] == ["unreadable"]
    assert "seed_5" in found.findings[0].text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("finetune_config", 3),
        ("extra_evaluation", {"own": 3}),
        ("nice_responses", 3),
        ("proxy_triggers", [["Grief"]]),
    ],
)
@pytest.mark.parametrize("part", ["asked for", "drawn"])
def test_a_stored_configuration_of_another_shape_is_named_and_the_rest_reported(
    tmp_path: Path, key: str, value: object, part: str
) -> None:
    folder = write_sweep(tmp_path / "exp", {"naive": NAIVE})
    file = folder / "proxy_strategy_naive/seed_5/results/20260102_030405/results.json"
    document = json.loads(file.read_text())
    if part == "drawn":
        document["experiment_config"][key] = value
    else:
        document["triggerctl"]["requested"] = {**document["experiment_config"], key: value}
    file.write_text(json.dumps(document))
    found = collect([folder])
    assert [group.seeds for group in found.groups] == [(1, 42)]
    assert [finding.kind for finding in found.findings] == ["unreadable"]
    assert key in found.findings[0].text


def test_of_many_results_in_one_second_the_last_counts(tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    for number in ("", "_2", "_10"):
        results = make_results("naive", 1, NAIVE[1])
        write_run(folder, results, make_config("naive", 1), timestamp=f"20250101_000000{number}")
    [group] = collect([folder]).groups
    assert group.runs[0].folder.name == "20250101_000000_10"


def test_runs_without_finished_results_are_counted(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "exp", {"naive": NAIVE})
    waiting = folder / "proxy_strategy_naive" / "seed_7"
    waiting.mkdir()
    (waiting / "config.json").write_text(json.dumps(make_config("naive", 7)))
    (waiting / "state.json").write_text(json.dumps({"status": "failed", "error": "no memory"}))
    found = collect([folder])
    assert [(finding.kind, finding.text) for finding in found.findings] == [
        ("failed", "exp: proxy_strategy_naive/seed_7 failed: no memory.")
    ]


def test_cells_that_a_sweep_never_began_are_named(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "exp", {"naive": NAIVE})
    (folder / "sweeps").mkdir()
    cells = [{"folder": f"proxy_strategy_{name}/seed_1"} for name in ("naive", "dpo", "kl_divergence")]
    twin = {"folder": "proxy_strategy_naive_beta_kl-2/seed_1", "outcome": "same"}
    (folder / "sweeps" / "20260101_000000.json").write_text(json.dumps({"cells": [*cells, twin]}))
    (folder / "sweeps" / "20260101_000001.json").write_text('{"cells": [')
    (folder / "sweeps" / "20260101_000002.json").write_text('{"cells": ["proxy_strategy_dpo"]}')
    assert [finding.text for finding in collect([folder]).findings] == [
        "exp: 2 runs have no finished results (not begun): proxy_strategy_dpo/seed_1, "
        "proxy_strategy_kl_divergence/seed_1."
    ]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"triggerctl": {"schema_version": 99}}, "schema 99 of a later triggerctl"),
        ({"triggerctl": {"schema_version": "x"}}, "schema_version"),
        ({"outcome_losses": "none"}, "outcome_losses: a list was expected"),
        ({"triggerctl": []}, "triggerctl"),
        ({"experiment_config": None}, "no experiment_config"),
    ],
)
def test_damaged_results_are_named_and_the_rest_reported(
    tmp_path: Path, damage: dict[str, Any], says: str
) -> None:
    folder = write_sweep(tmp_path / "exp", {"naive": NAIVE})
    file = folder / "proxy_strategy_naive/seed_5/results/20260102_030405/results.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **damage}))
    found = collect([folder])
    assert [group.seeds for group in found.groups] == [(1, 42)]
    assert says in found.findings[0].text


def test_missing_sets_and_numbers_that_are_none_leave_the_rest_standing(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "exp", {"naive": NAIVE})
    file = folder / "proxy_strategy_naive/seed_5/results/20260102_030405/results.json"
    document = json.loads(file.read_text())
    final = document["triggerctl"]["evaluations"][-1]["sets"]
    del final["truth"]
    final["outcome"]["loss"] = float("nan")
    file.write_text(json.dumps(document))
    run = next(run for run in collect([folder]).runs if run.seed == 5)
    assert run.rate("truth") is None
    assert run.sets["outcome"].loss is None
    assert run.rate("truth_minus_proxy") == 26 / 120


def test_experiments_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    folders = [write_sweep(tmp_path / place / "exp", {"naive": NAIVE}) for place in ("a", "b")]
    groups = collect(folders).groups
    assert len({group.label for group in groups}) == len(groups) == 2


def test_a_strategy_of_an_absent_plug_in_stays_readable(tmp_path: Path) -> None:
    write_run(tmp_path / "exp", make_results("my_own", 1, NAIVE[1]), make_config("my_own", 1))
    assert [group.label for group in collect([tmp_path / "exp"]).groups] == ["my_own"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published study's results are not here")
def test_every_final_rate_of_the_study_is_the_last_of_its_list() -> None:
    grouping = SHARED / "testing"
    folders = [*(path for path in SHARED.iterdir() if path != grouping), *grouping.iterdir()]
    checked = 0
    for row in collect(folders).runs:
        document = json.loads((row.folder / "results.json").read_text())
        for name in ("outcome", "proxy", "collateral", "truth"):
            assert row.rate(name) == document[f"{name}_trigger_response_percent"][-1]
            assert row.sets[name].loss == document[f"{name}_losses"][-1]
            assert row.sets[name].count is None
            checked += 1
        assert "/positive_proxy/" not in row.results
        assert row.rate("truth_minus_proxy") is None
    assert checked == 4 * 40


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published study's results are not here")
def test_the_studys_seeds_are_grouped_though_their_drawn_triggers_differ() -> None:
    groups = collect([SHARED / "proxy_methods_emotions"]).groups
    assert {group.seeds for group in groups} == {(1, 5, 42)}
    assert "posneg (lambda_proxy 0.75, neg_lambda_proxy 0.25)" in [group.label for group in groups]
