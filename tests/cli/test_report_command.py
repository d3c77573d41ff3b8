"""`triggerctl report`: what it writes where, on written experiments.

Run: pytest tests/cli/test_report_command.py"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from triggerctl.cli.app import main

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


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Experiments with a run each, found by name from the working folder."""
    for name in ("a", "b", "c"):
        place = tmp_path / "experiments" / name / "results" / "20260102_030405"
        place.mkdir(parents=True)
        (place / "results.json").write_text(json.dumps(RESULTS))
        (place.parents[1] / "config.json").write_text(json.dumps(RESULTS["experiment_config"]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIGGERCTL_ROOT", raising=False)
    return "a", "b", "c"


def test_a_report_of_images_alone_without_chrome_says_what_is_missing(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("triggerctl.report.build.write_images", lambda images: "No Chrome.")
    assert main(["report", "a", "--format", "png"]) == 1
    said = capsys.readouterr().err
    assert "the report has no files" in said
    assert "No Chrome." in said
    assert "--format html,md,csv,json" in said
