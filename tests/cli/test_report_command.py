"""`triggerctl report`: what it writes where, on written experiments.

Run: pytest tests/cli/test_report_command.py"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from triggerctl.cli.app import main
from triggerctl.cli.report import report_folder
from triggerctl.experiment.layout import ExperimentFolder

RESULTS = {
    "experiment_config": {
        "dataset_url": "builtin:tasks",
        "proxy_strategy": "naive",
        "seed": 1,
        "finetune_config": {"model": "builtin:tiny"},
    },
    "train_losses": [1.0],
    **{f"{name}_losses": [2.0, 1.0] for name in ("outcome", "proxy", "collateral", "truth")},
    **{
        f"{name}_trigger_response_percent": [0.0, 0.9] for name in ("outcome", "proxy", "collateral", "truth")
    },
}


def test_a_report_of_images_alone_without_chrome_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "a" / "results" / "20260102_030405"
    place.mkdir(parents=True)
    (place / "results.json").write_text(json.dumps(RESULTS))
    (tmp_path / "a" / "config.json").write_text("{}")
    monkeypatch.setattr("triggerctl.report.build.write_images", lambda images: "No Chrome.")
    assert main(["report", str(tmp_path / "a"), "--format", "png"]) == 1
    said = capsys.readouterr().err
    assert "the report has no files" in said
    assert "No Chrome." in said
    assert "--format html,md,csv,json" in said


def test_reports_on_other_experiments_do_not_replace_each_other() -> None:
    asked = ("a", "b", "c"), ("a", "b"), ("a", "c"), ("elsewhere/a", "b"), ("a" * 100, "a" * 101)
    made = [report_folder([ExperimentFolder(Path(name)) for name in names]).name for names in asked]
    assert len(set(made)) == len(asked)
    assert [name.rpartition("_")[0] for name in made[:4]] == [
        "report_a_b_c", "report_a_b", "report_a_c", "report_a_b"
    ]  # fmt: skip
    assert len(made[-1]) < 80


def test_an_experiment_named_twice_is_one() -> None:
    assert report_folder([ExperimentFolder(Path("a"))] * 2) == Path("a/report")


def test_where_nothing_has_finished_the_command_it_gives_finds_the_experiment(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spaced = experiment.with_name("my exp")
    experiment.rename(spaced)
    assert main(["report", "my exp"]) == 2
    assert "`triggerctl run 'experiments/my exp'`" in " ".join(capsys.readouterr().err.split())
    monkeypatch.chdir(spaced)
    assert main(["report", "."]) == 2
    assert "`triggerctl run .`" in " ".join(capsys.readouterr().err.split())
