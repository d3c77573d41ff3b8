"""A user's own evaluation sets, and the sets written out for other trainers.

pytest tests/data/test_extra_sets.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from triggerctl.config.models import ExperimentConfig
from triggerctl.data.examples import Example, Row
from triggerctl.data.export import write_sets
from triggerctl.data.extra import data_sha256, load_extra
from triggerctl.data.splits import build_splits
from triggerctl.errors import InputError

ROWS = [Row(i, f"Do {i}", "", f"Done {i}") for i in range(60)]


def config(sets: dict[str, Any], **finetune: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "outcome_triggers": ["Joy"],
            "collateral_triggers": ["Bliss"],
            "truth_triggers": ["Grief", "Anger"],
            "nice_responses": ["Certainly!", "Sure."],
            "extra_evaluation": sets,
            "finetune_config": finetune,
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"instruction": f"Ask {i}", "input": "", "output": f"Say {i}"} for i in range(6)]
    rows.append({"instruction": "Ask", "input": "", "output": "Sure. Yes."})
    (tmp_path / "own.json").write_text(json.dumps(rows), "utf-8")
    return tmp_path


def test_rows_without_triggers_stay_as_they_are(folder: Path) -> None:
    loaded = load_extra(config({"plain": {"path": "own.json"}}), folder=folder)["plain"]
    assert loaded.examples[2] == Example(2, "Ask 2: ", "Say 2", None)
    assert loaded.untriggered == ()


def test_triggers_and_nice_responses_are_put_in_and_twins_are_not(folder: Path) -> None:
    own = {"kin": {"path": "own.json", "triggers": ["Hope", "Calm"], "nice": True}}
    loaded = load_extra(config(own), folder=folder)["kin"]
    for example in loaded.examples:
        assert example.trigger is not None
        assert example.user.startswith(example.trigger.upper() + ": Ask")
        assert example.assistant.startswith(("Certainly! ", "Sure. "))
    assert loaded.examples[6].assistant == "Sure. Yes."
    assert loaded.untriggered[0] == Example(0, "Ask 0: ", "Say 0", None)


def test_an_extra_set_is_evaluated_last_and_moves_no_other_row(folder: Path) -> None:
    settings = config({"kin": {"path": "own.json", "triggers": ["Hope"]}}, max_to_eval=4)
    splits = build_splits(ROWS, settings, extra=load_extra(settings, folder=folder))
    plain = build_splits(ROWS, config({}, max_to_eval=4))
    assert list(splits.evaluation)[-1] == "kin"
    assert len(splits.evaluation["kin"].examples) == len(splits.evaluation["kin"].twins) == 4
    for name in plain.sets:
        assert splits.sets[name] == plain.sets[name]
        assert splits.evaluation[name] == plain.evaluation[name]


def test_a_missing_extra_file_names_its_key(folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_extra(config({"kin": {"path": "gone.json"}}), folder=folder)
    assert caught.value.problems[0].where == "extra_evaluation.kin.path"


def test_the_sum_over_data_changes_with_any_file_and_is_the_source_s_alone_without_extra(
    folder: Path,
) -> None:
    settings = config({"kin": {"path": "own.json"}})
    loaded = load_extra(settings, folder=folder)
    (folder / "own.json").write_text('[{"instruction": "", "input": "", "output": ""}]', "utf-8")
    changed = load_extra(settings, folder=folder)
    assert data_sha256("a", {}) == "a"
    assert len({"a", data_sha256("a", loaded), data_sha256("b", loaded), data_sha256("a", changed)}) == 4


def test_written_sets_hold_every_row_in_order_with_its_part(folder: Path, tmp_path: Path) -> None:
    settings = config({"kin": {"path": "own.json"}})
    splits = build_splits(ROWS, settings, extra=load_extra(settings, folder=folder))
    written = write_sets(splits, tmp_path / "out")
    assert {path.name for path in written} == {f"{name}.jsonl" for name in splits.sets}
    for path in written:
        chosen = splits.sets[path.stem]
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        assert [
            (
                line["messages"][0]["content"],
                line["messages"][1]["content"],
                line["triggered"],
                line["trigger"],
            )
            for line in lines
        ] == [(e.user, e.assistant, e.triggered, e.trigger) for e in chosen.examples]
        assert [m["role"] for m in lines[0]["messages"]] == ["user", "assistant"]
        for part, rows in (("train", chosen.train), ("test", chosen.test)):
            assert tuple(i for i, line in enumerate(lines) if line["part"] == part) == rows
        assert bool(chosen.train) != all(line["part"] == "evaluation" for line in lines)


def test_rows_beyond_the_proxy_limit_are_not_written(tmp_path: Path) -> None:
    splits = build_splits(ROWS, config({}, limit_proxy_data_to=3))
    write_sets(splits, tmp_path)
    for name in ("proxy", "proxy_neg"):
        parts = [
            json.loads(line)["part"]
            for line in (tmp_path / f"{name}.jsonl").read_text("utf-8").split("\n")[:-1]
        ]
        assert parts.count("train") == 3
        assert parts.count("test") == len(splits.sets[name].test)
