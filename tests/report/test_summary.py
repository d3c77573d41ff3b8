"""pytest tests/report/test_summary.py"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from written_experiments import KL, NAIVE, make_config, make_results, write_run, write_sweep

from triggerctl.report.collect import collect
from triggerctl.report.comparisons import compare
from triggerctl.report.early import first_learnt, group_first_learnt
from triggerctl.report.markdown import to_markdown
from triggerctl.report.rows import Group
from triggerctl.report.spreadsheet import to_csv
from triggerctl.report.summary import ReportSummary, rate_legend, summarise, to_json

LEAK = "truth_minus_proxy"


@pytest.fixture
def groups(tmp_path: Path) -> tuple[Group, ...]:
    return collect([write_sweep(tmp_path / "demo", {"naive": NAIVE, "kl_divergence": KL})]).groups


def summary_of(groups: tuple[Group, ...]) -> ReportSummary:
    naive = next((group for group in groups if group.name == "naive"), None)
    return summarise(
        groups,
        headline="kl leaks least",
        warnings=[],
        baseline=naive,
        comparisons=compare(groups, naive),
    )


def study(folder: Path) -> tuple[Group, ...]:
    """Two seeds in the study's form: rates, no counts."""
    for seed, rates in ((1, (0.1, 0.8)), (5, (0.1, 0.7))):
        place = folder / "study" / "proxy_strategy_naive" / f"seed_{seed}" / "results" / "20250102_030405"
        place.mkdir(parents=True)
        sets = {
            f"{name}_trigger_response_percent": [rates[0] * 100, rates[1] * 100]
            for name in ("outcome", "proxy", "truth", "collateral")
        }
        document = {"experiment_config": make_config("naive", seed), "train_losses": [1.0], **sets}
        (place / "results.json").write_text(json.dumps(document))
    return collect([folder / "study"]).groups


def test_a_summary_comes_back_from_its_json_as_it_was(groups: tuple[Group, ...]) -> None:
    summary = summary_of(groups)
    assert summary.schema_version == 2
    again = ReportSummary.model_validate_json(to_json(summary))
    assert again.groups == summary.groups
    assert again.comparisons == summary.comparisons


def test_every_seed_and_both_intervals_are_there(groups: tuple[Group, ...]) -> None:
    naive = next(group for group in summary_of(groups).groups if group.label == "naive")
    leak = naive.sets[LEAK]
    assert leak.seeds == (1, 5, 42)
    assert leak.values == pytest.approx((0.1, 26 / 120, 0.65))
    assert leak.over_seeds is not None
    assert leak.over_words is not None
    assert (leak.over_seeds.method, leak.over_words.method, leak.over_rows) == ("seeds", "words", None)
    assert naive.sets["proxy"].over_words is None
    assert naive.separation is not None
    assert naive.separation.seeds == (1, 5, 42)
    assert naive.separation.over_seeds is not None


def test_false_positives_and_coherence_stand_beside_each_rate(groups: tuple[Group, ...]) -> None:
    found = summary_of(groups).groups[0].sets["outcome"]
    assert found.false_positives is not None
    assert found.false_positives.n == 3 * 72
    text = to_markdown(groups, summary_of(groups), title="demo", images=[])
    row = next(line for line in text.splitlines() if line.startswith("| kl | outcome |"))
    assert f"{found.false_positives.k}/{found.false_positives.n}" in row
    rows = list(csv.DictReader(io.StringIO(to_csv(groups))))
    assert {"outcome_false_positive_k", "outcome_untriggered_loss_before"} <= set(rows[0])


def test_stopping_early_is_told_by_the_first_evaluation_that_reaches_it(groups: tuple[Group, ...]) -> None:
    naive = next(group for group in groups if group.name == "naive")
    run = naive.runs[2]
    expected = next(point for point in run.curve if point.rates["outcome"] >= 0.9)
    found = first_learnt(run, LEAK)
    assert found is not None
    assert (found.epoch, found.leak) == (expected.epoch, expected.rates[LEAK])
    assert found.epoch < run.curve[-1].epoch
    whole = group_first_learnt(naive)
    assert (whole.runs, whole.learnt) == (3, 3)
    assert whole.leak is not None
    assert whole.leak_at_end == pytest.approx(naive.mean(LEAK))
    assert whole.leak < (whole.leak_at_end or 0)


def test_a_run_that_never_got_there_has_no_first_evaluation(tmp_path: Path) -> None:
    rates = {**NAIVE[1], "outcome": 0.4}
    write_run(
        tmp_path / "e" / "proxy_strategy_naive" / "seed_1",
        make_results("naive", 1, rates),
        make_config("naive", 1),
    )
    (group,) = collect([tmp_path / "e"]).groups
    assert first_learnt(group.runs[0], LEAK) is None
    found = group_first_learnt(group)
    assert (found.learnt, found.epoch, found.leak) == (0, None, None)


def test_one_run_has_its_rows_interval_and_none_over_seeds(tmp_path: Path) -> None:
    groups = collect([write_sweep(tmp_path / "e", {"naive": {1: NAIVE[1]}})]).groups
    found = summary_of(groups).groups[0].sets[LEAK]
    assert found.over_rows is not None
    assert (found.over_rows.method, found.over_seeds, found.over_words) == ("wilson", None, None)
    assert "says nothing of other seeds" in rate_legend(groups)


def test_results_without_counts_claim_seeds_alone_and_the_legend_says_so(tmp_path: Path) -> None:
    groups = study(tmp_path)
    assert len(groups) == 1
    summary = summary_of(groups)
    found = summary.groups[0].sets["truth"]
    assert found.over_seeds is not None
    assert found.over_words is None
    assert "no counts" in summary.intervals
    assert summary.intervals in to_markdown(groups, summary, title="study", images=[])


def test_the_text_report_has_differences_with_both_intervals(groups: tuple[Group, ...]) -> None:
    text = to_markdown(groups, summary_of(groups), title="demo", images=[])
    row = next(line for line in text.splitlines() if line.startswith(f"| kl | naive | {LEAK} |"))
    assert row.startswith(f"| kl | naive | {LEAK} | 3 | -0.30 | [-1.00, +0.45] | [-1.00, ")
    assert "What 3 seeds can show" in text
    assert "## Had training stopped early" in text
