"""pytest tests/config/test_schema.py"""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from triggerctl.config import jsonc
from triggerctl.config.load import load_config
from triggerctl.config.models import LEGACY_FINETUNE_KEYS, ExperimentConfig, ExtraEvaluation, FinetuneConfig
from triggerctl.config.schema import expected, json_schema

TEMPLATES = sorted((Path(__file__).parents[2] / "templates").glob("*/config.json"))


def wrong(values: object) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(json_schema()).iter_errors(values)]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    json.dumps(json_schema())


def test_the_schema_takes_defaults_nulls_and_legacy_keys() -> None:
    dumped = ExperimentConfig().model_dump(mode="json")
    assert wrong(dumped) == []
    nulls = dict.fromkeys(FinetuneConfig.model_fields)
    assert wrong({"seed": None, "finetune_config": nulls}) == []
    assert wrong({"finetune_config": dict.fromkeys(LEGACY_FINETUNE_KEYS, 1)}) == []


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 3},
        {"seed": "3"},
        {"seed": -1},
        {"outcome_triggers": "Joy"},
        {"finetune_config": {"loss": "x"}},
        {"finetune_config": {"train_split": 1}},
        {"extra_evaluation": {"mine": {}}},
        {"extra_evaluation": {"a b": {"path": "x"}}},
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(values: dict[str, object]) -> None:
    assert wrong(values)


def test_every_key_of_the_schema_has_a_description_and_no_mark_of_ours() -> None:
    schema = json_schema()
    for fragment in (schema, *schema["$defs"].values()):
        for name, taken in fragment["properties"].items():
            assert taken.get("description"), name
            assert "hashed" not in taken


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.parent.name)
def test_the_templates_load_and_fit_the_schema(path: Path) -> None:
    load_config(path)
    assert wrong(jsonc.read(path).value) == []


def test_what_any_key_takes_can_be_said_in_words() -> None:
    for name in ExperimentConfig.model_fields:
        assert expected((name,))
    for name in FinetuneConfig.model_fields:
        assert expected(("finetune_config", name))
    for name in ExtraEvaluation.model_fields:
        assert expected(("extra_evaluation", "mine", name))


def test_words_tell_limits_choices_and_lists() -> None:
    assert expected(("finetune_config", "train_split")) == "a number, greater than 0 and less than 1"
    assert expected(("finetune_config", "max_steps")) == "a whole number, at least 1; or null"
    assert expected(("finetune_config", "loss_on")) == 'one of "all", "response"'
    assert expected(("outcome_triggers",)) == "a list, each item a string that is not empty"
    assert expected(("outcome_triggers", 0)) == "a string that is not empty"
    assert expected(("extra_evaluation",)) == "an object, { … }"
