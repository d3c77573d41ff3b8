"""What a leak is read from is each experiment's own, whatever else a report is on.

pytest tests/report/test_leak_sets.py"""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from written_experiments import KL, NAIVE, OUTCOME_ONLY, ROWS, write_sweep

from triggerctl.report.build import ReportResult, build_report
from triggerctl.report.comparisons import SEPARATION, Comparison
from triggerctl.report.figures import report_figures
from triggerctl.report.spoken import figure_numbers
from triggerctl.report.summary import GroupSummary, ReportSummary
from triggerctl.report.tables import Table, comparison_table, early_table, rate_table

SWEEP = {"naive": NAIVE, "kl_divergence": KL, "outcome_only": OUTCOME_ONLY}
OWN, OTHERS = "truth_minus_proxy", "truth"
LACKING = {OTHERS: (OWN,), None: (OWN, OTHERS)}
"""The other experiment's leak set → the sets that it lacks for that."""
TEXTS = frozenset({"html", "md", "csv", "json"})

both_ways = pytest.mark.parametrize("others", [OTHERS, None])
"""The other experiment has another leak set, or none at all."""


def ours(folder: Path) -> Path:
    return write_sweep(folder / "ours", SWEEP)


def report_on(*folders: Path) -> ReportResult:
    return build_report(folders, folders[0].parent / f"out_{len(folders)}", formats=TEXTS)


def report_on_both(folder: Path, others: str | None) -> ReportResult:
    kept = {name: n for name, n in ROWS.items() if name not in LACKING[others]}
    return report_on(ours(folder), write_sweep(folder / "other", SWEEP, rows=kept))


def own_groups(made: ReportResult) -> list[GroupSummary]:
    return [group for group in made.summary.groups if group.experiment == "ours"]


def own_comparisons(made: ReportResult) -> list[Comparison]:
    labels = {group.label for group in own_groups(made)}
    return [each for each in made.summary.comparisons if each.group in labels]


def own_rows(made: ReportResult) -> list[dict[str, str]]:
    [path] = [path for path in made.paths if path.suffix == ".csv"]
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["experiment"] == "ours"]


def column(table: Table, head: str) -> list[str]:
    place = [each.text for each in table.heads].index(head)
    return [row[place].text for row in table.rows]


@both_ways
def test_another_experiment_leaves_an_experiments_separations_as_they_are(
    tmp_path: Path, others: str | None
) -> None:
    alone, together = report_on(ours(tmp_path / "alone")), report_on_both(tmp_path / "both", others)
    for one, same in zip(own_groups(alone), own_groups(together), strict=True):
        assert one.separation is not None
        assert (same.separation, same.first_learnt, same.first_learnt_by_run) == (
            *(one.separation, one.first_learnt, one.first_learnt_by_run),
        )
    numbers = ("separation", "first_learnt_epoch", "first_learnt_leak", "leak_set")
    for row, again in zip(own_rows(alone), own_rows(together), strict=True):
        assert row["leak_set"] == OWN
        assert [row[name] for name in numbers] == [again[name] for name in numbers]
    by_label = {"group": "", "baseline": ""}
    assert [asdict(each) | by_label for each in own_comparisons(alone)] == [
        asdict(each) | by_label for each in own_comparisons(together)
    ]
    [sentence] = [line for line in together.summary.few_seeds if line.startswith("ours: ")]
    assert sentence.removeprefix("ours: ").replace(" (ours)", "") == alone.summary.few_seeds[0]
    assert f"ours: {alone.headline}" in together.headline.splitlines()


@both_ways
def test_tables_headline_and_figure_read_one_leak(tmp_path: Path, others: str | None) -> None:
    """The naive group keeps the habit at 1.00 and leaks 0.32 on its own leak set, 0.28 on the other's."""
    made = report_on_both(tmp_path, others)
    naive, kl = (
        next(group for group in own_groups(made) if group.label == f"{name} (ours)")
        for name in ("naive", "kl")
    )
    figure = report_figures(made.groups, None)["trade_off_ours"]
    assert OWN in figure.layout.xaxis.title.text
    for group, leak in ((naive, 0.32), (kl, 0.02)):
        [mark] = [trace for trace in figure.data if trace.name == group.label.removesuffix(" (ours)")]
        assert mark.x[0] == pytest.approx(leak, abs=0.005)
        assert group.separation is not None
        assert group.separation.mean == pytest.approx(mark.y[0] - mark.x[0])
    assert f"on {OWN} (0.02 against 0.32;" in made.headline


@both_ways
def test_where_leak_sets_differ_every_separation_says_which_it_is_of(
    tmp_path: Path, others: str | None
) -> None:
    made = report_on_both(tmp_path, others)
    named = ["–" if others is None else others] * 3 + [OWN] * 3
    assert column(rate_table(made.groups), "leak read from") == named
    assert column(early_table(made.groups), "leak read from") == named
    remarks = {row[1].below for row in comparison_table(made.summary.comparisons).rows}
    assert remarks - {""} == {f"habit kept − {name}" for name in (OWN, others) if name is not None}
    written = {path.name: path.read_text(encoding="utf-8") for path in made.paths}
    assert written["report.md"].count(f"| {SEPARATION} (leak: {OWN}) |") == 3 + 2
    assert f"| {SEPARATION} |" not in written["report.md"]
    assert "leak read from" in written["index.html"]
    figures = report_figures(made.groups, made.groups[0], made.summary.comparisons)
    assert figure_numbers(figures["differences_ours"])[0].title == f"separation · habit kept − {OWN}"
    summary = ReportSummary.model_validate_json(written["summary.json"])
    assert summary.leak_set is None
    assert {group.experiment: group.leak_set for group in summary.groups} == {"ours": OWN, "other": others}


def test_where_all_have_one_leak_set_it_stands_once_and_no_table_repeats_it(tmp_path: Path) -> None:
    made = report_on(ours(tmp_path), write_sweep(tmp_path / "more", SWEEP))
    assert made.summary.leak_set == OWN
    assert all(group.leak_set == OWN for group in made.summary.groups)
    heads = [
        head.text for table in (rate_table(made.groups), early_table(made.groups)) for head in table.heads
    ]
    assert "leak read from" not in heads
    text = next(path for path in made.paths if path.name == "report.md").read_text(encoding="utf-8")
    assert f"| {SEPARATION} |" in text
    assert "leak:" not in text


def test_a_summary_written_before_groups_named_their_leak_set_can_be_read(tmp_path: Path) -> None:
    made = report_on(ours(tmp_path))
    document: dict[str, Any] = json.loads(made.summary.model_dump_json())
    for each in (*document["groups"], *document["comparisons"]):
        del each["leak_set"]
    again = ReportSummary.model_validate(document)
    assert again.leak_set == OWN
    assert [group.separation for group in again.groups] == [group.separation for group in made.summary.groups]
