"""pytest tests/report/test_published.py: the study's own results, recomputed here in a few lines."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev

import pytest

from triggerctl.report.build import build_report
from triggerctl.report.summary import ReportSummary

SHARED = Path(__file__).parents[2].parent / "shared" / "published" / "experiments"
SETS = ("outcome", "proxy", "collateral", "truth")

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the published study's results are not here")


def experiments() -> list[Path]:
    grouping = SHARED / "testing"
    return [*sorted(path for path in SHARED.iterdir() if path != grouping), *sorted(grouping.iterdir())]


def last_rates(cell: Path) -> dict[int, dict[str, float]]:
    """Seed → set → final rate, of the newest results that lie directly under a run's `results/`."""
    found = {}
    for file in sorted(cell.glob("**/results/*/results.json")):
        document = json.loads(file.read_text())
        rates = {name: document[f"{name}_trigger_response_percent"][-1] for name in SETS}
        found[document["experiment_config"]["seed"]] = rates
    return found


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> ReportSummary:
    output = tmp_path_factory.mktemp("report")
    build_report(experiments(), output, formats=frozenset({"json"}))
    return ReportSummary.model_validate_json((output / "summary.json").read_text())


def test_every_mean_and_deviation_is_that_of_the_files(summary: ReportSummary) -> None:
    compared = 0
    for group in summary.groups:
        runs = [
            run
            for run in summary.runs
            if (run.experiment, run.strategy) == (group.experiment, group.strategy)
        ]
        root = next(path for path in experiments() if path.name == group.experiment)
        folders = {run.results.rpartition("/seed_")[0] for run in runs if run.seed in group.seeds}
        cells = [root / folder for folder in folders if folder.startswith("proxy_strategy")] or [root]
        candidates = [last_rates(cell) for cell in cells]
        assert candidates
        for name, told in group.sets.items():
            means = [mean(rates[name] for rates in found.values()) for found in candidates]
            assert any(told.mean == pytest.approx(value, abs=1e-12) for value in means), (group.label, name)
            if len(group.seeds) > 1 and len(candidates) == 1:
                assert told.deviation == pytest.approx(stdev(rates[name] for rates in candidates[0].values()))
            compared += 1
    assert compared >= 4 * 20


def test_no_phase_of_a_run_is_taken_for_a_run(summary: ReportSummary) -> None:
    assert not [run.results for run in summary.runs if "_proxy/" in run.results]


def test_runs_that_never_learnt_and_ignored_keys_are_named(summary: ReportSummary) -> None:
    texts = {
        kind: " ".join(w.text for w in summary.warnings if w.kind == kind)
        for kind in ("never_learnt", "misplaced_keys")
    }
    unlearnt = {run.experiment for run in summary.runs if (run.rate("outcome") or 0) < 0.5}
    assert unlearnt == {"cosine_sim_test", "grad_project_precomputed_test", "proxy_loss_test"}
    assert all(name in texts["never_learnt"] for name in unlearnt)
    assert "limit_proxy_data_to" in texts["misplaced_keys"]
    assert "proxy_neg_content" in texts["misplaced_keys"]
