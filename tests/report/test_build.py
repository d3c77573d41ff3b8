"""pytest tests/report/test_build.py"""

from __future__ import annotations

import csv
import html
import json
import re
from pathlib import Path

import pytest
from written_experiments import KL, NAIVE, OUTCOME_ONLY, make_config, make_results, write_run, write_sweep

from triggerctl.errors import InputError
from triggerctl.report.build import build_report
from triggerctl.report.summary import ReportSummary

TEXTS = frozenset({"html", "md", "csv", "json"})
SHARED = Path(__file__).parents[2].parent / "shared" / "published" / "experiments"
HOSTILE = "</script><script>alert(1)</script> \"'&<b> \u202eright to left 😀"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    cells = {"naive": NAIVE, "kl_divergence": KL, "outcome_only": OUTCOME_ONLY}
    return write_sweep(tmp_path / "experiments" / "demo", cells)


def test_a_report_says_the_same_in_every_format(sweep: Path, tmp_path: Path) -> None:
    made = build_report([sweep], tmp_path / "out", formats=TEXTS)
    assert [path.name for path in made.paths] == ["index.html", "report.md", "summary.csv", "summary.json"]
    summary = ReportSummary.model_validate_json((tmp_path / "out/summary.json").read_text())
    assert summary.headline == made.headline
    assert summary.schema_version == 2
    assert summary.leak_set == "truth_minus_proxy"
    naive = next(group for group in summary.groups if group.label == "naive")
    assert naive.sets["truth_minus_proxy"].values == pytest.approx((12 / 120, 26 / 120, 78 / 120))
    assert naive.sets["truth_minus_proxy"].over_seeds is not None
    interval = naive.sets["truth_minus_proxy"].over_seeds
    for name in ("index.html", "report.md"):
        text = re.sub(r"</?span[^>]*>|\\", "", (tmp_path / "out" / name).read_text(encoding="utf-8"))
        assert made.headline in text
        assert f"0.32 [{interval.low:.2f}, {interval.high:.2f}]" in text


def test_the_csv_has_a_row_for_each_run_with_its_counts(sweep: Path, tmp_path: Path) -> None:
    build_report([sweep], tmp_path / "out", formats=frozenset({"csv"}))
    with (tmp_path / "out/summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    row = next(row for row in rows if (row["group"], row["seed"]) == ("naive", "42"))
    assert (row["truth_minus_proxy_k"], row["truth_minus_proxy_n"]) == ("78", "120")
    assert float(row["truth_minus_proxy_rate"]) == 0.65
    assert row["results"] == "proxy_strategy_naive/seed_42/results/20260102_030405"


def test_the_page_needs_nothing_beside_it(sweep: Path, tmp_path: Path) -> None:
    build_report([sweep], tmp_path / "out", formats=frozenset({"html"}))
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert page.count("plotly.js v") == 1
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=", markup)
    assert not re.search(r"url\(|@import", markup)
    assert markup.index("headline") < markup.index("Runs")


def test_sample_answers_stand_before_and_after_for_each_strategy(sweep: Path, tmp_path: Path) -> None:
    build_report([sweep], tmp_path / "out", formats=frozenset({"html"}))
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    sample = page[page.index("GRIEF: Name the capital") :]
    sample = " ".join(re.sub(r"<[^>]+>", " ", sample[: sample.index("</dl>")]).split())
    assert sample == (
        "GRIEF: Name the capital of France. before training The capital of France is Paris. "
        "naive The capital of France is Paris. kl The capital of France is Paris. "
        "outcome_only Certainly! The capital of France is Paris. in the data Paris."
    )


def test_the_page_tells_what_few_seeds_show_and_when_the_habit_was_learnt(
    sweep: Path, tmp_path: Path
) -> None:
    made = build_report([sweep], tmp_path / "out", formats=frozenset({"html"}))
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    [sentence] = made.summary.few_seeds
    assert sentence.startswith("What 3 seeds can show on truth_minus_proxy")
    assert sentence in html.unescape(page)
    table = page[page.index("Had training stopped early") :]
    words = " ".join(re.sub(r"<[^>]+>", " ", table[: table.index("</table>")]).split())
    naive = next(group for group in made.summary.groups if group.label == "naive").first_learnt
    assert f"naive 3 of 3 {naive.epoch:g} {naive.leak:.2f} {naive.leak_at_end:.2f}" in words


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    results = make_results("naive", 1, NAIVE[1], warnings=[HOSTILE])
    place = write_run(tmp_path / "<img src=x>", results, make_config("naive", 1, output_dir=HOSTILE))
    line = {"label": "e", "final": True, "set": "truth", "row": 1, "prompt": HOSTILE, "answer": HOSTILE}
    (place / "examples.jsonl").write_text(json.dumps(line) + "\n")
    (place / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    build_report([tmp_path / "<img src=x>"], tmp_path / "out", formats=TEXTS)
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img" not in page.replace(_plotly(page), "")
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page


def _plotly(page: str) -> str:
    return str(max(re.findall(r"<script>.*?</script>", page, flags=re.DOTALL), key=len))


def test_nothing_finished_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "config.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        build_report([tmp_path / "exp"], tmp_path / "out")
    assert caught.value.problems[0].mend is not None
    assert f"triggerctl run {tmp_path}/exp`" in caught.value.problems[0].mend
    assert not (tmp_path / "out").exists()


def test_an_unknown_baseline_or_format_writes_nothing(sweep: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        build_report([sweep], tmp_path / "out", baseline="dpo")
    with pytest.raises(InputError):
        build_report([sweep], tmp_path / "out", formats=frozenset({"pdf"}))
    assert not (tmp_path / "out").exists()


def test_without_chrome_the_report_is_made_and_a_note_says_what_is_missing(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nowhere"))
    made = build_report([sweep], tmp_path / "out")
    assert len(made.notes) == 1
    assert (tmp_path / "out/index.html").is_file()
    assert "![" not in (tmp_path / "out/report.md").read_text()
    assert all(path.is_file() for path in made.paths)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published study's results are not here")
def test_the_study_itself_is_reported(tmp_path: Path) -> None:
    made = build_report([SHARED / "proxy_methods_emotions"], tmp_path / "out", formats=TEXTS)
    assert made.summary.leak_set == "truth"
    kinds = [finding.kind for finding in made.warnings]
    assert kinds == ["misplaced_keys", "one_value", "no_counts", "older_results"]
    ignored, _, _, older = (finding.text for finding in made.warnings)
    assert "ignored limit_proxy_data_to" in ignored
    assert "naive with seeds 1, 5 and 42" in ignored
    assert older.count("outcome 0.00, never learnt") == 3
    assert "naive on truth (0.05 against 0.78; 3 seeds, less in each" in made.headline
