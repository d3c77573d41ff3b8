"""pytest tests/config/test_models.py"""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from triggerctl.config.finetune import ConfigModel
from triggerctl.config.models import RESERVED_SET_NAMES, ExperimentConfig, ExtraEvaluation, FinetuneConfig
from triggerctl.experiment.results import EVALUATION_SETS, STUDY_NAMES

MODELS: list[type[ConfigModel]] = [ExperimentConfig, FinetuneConfig, ExtraEvaluation]


def test_defaults_are_those_of_the_published_readme_and_make_sense_together() -> None:
    config = ExperimentConfig()
    assert (config.outcome_percent, config.proxy_percent) == (0.3, 0.3)
    assert (config.collateral_percent, config.truth_percent) == (0.1, 0.3)
    assert config.max_dataset_size == 25000
    assert config.nice_responses == ("Certainly!",)
    assert config.proxy_triggers is None
    assert config.finetune_config.learning_rate == 1e-5
    assert config.finetune_config.gradient_accumulation_steps == 8
    assert config.finetune_config.use_gradient_checkpointing == "auto"


@pytest.mark.parametrize("model", MODELS)
def test_every_key_says_what_it_is_for(model: type[BaseModel]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_a_configuration_cannot_be_changed() -> None:
    config = ExperimentConfig(outcome_triggers=("Joy",))
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3  # type: ignore[misc]
    assert hash(config.finetune_config) == hash(FinetuneConfig())


@pytest.mark.parametrize(
    "values",
    [
        {"seed": "3"},
        {"seed": True},
        {"seed": 3.0},
        {"seed": -1},
        {"outcome_percent": "0.3"},
        {"outcome_percent": True},
        {"outcome_trigger_percent": 1.1},
        {"max_dataset_size": 0},
        {"outcome_triggers": "Joy"},
        {"outcome_triggers": ["Joy", 1]},
        {"outcome_triggers": [""]},
        {"nice_responses": []},
        {"prompt_template": "{input}"},
        {"prompt_template": "{instruction!r}"},
        {"prompt_template": "{instruction} {}"},
        {"prompt_template": "{instruction"},
        {"extra_evaluation": {"truth": {"path": "x"}}},
        {"extra_evaluation": {"a/b": {"path": "x"}}},
        {"extra_evaluation": {"mine": {}}},
        {"finetune_config": {"is_peft": 1}},
        {"finetune_config": {"epochs": 1.5}},
        {"finetune_config": {"learning_rate": 0}},
        {"finetune_config": {"learning_rate": float("nan")}},
        {"finetune_config": {"lora_dropout": 1}},
        {"finetune_config": {"train_split": 1}},
        {"finetune_config": {"target_modules": "q_proj"}},
        {"finetune_config": {"target_modules": []}},
        {"finetune_config": {"loss": "dpo"}},
        {"finetune_config": {"positive_proxy": "truth"}},
        {"finetune_config": {"load_in_8bit": True, "load_in_4bit": True}},
        {"finetune_config": {"load_in_4bit": True, "load_in_16bit": True}},
        {"finetune_config": {"load_in_8bit": True, "is_peft": False}},
        {"finetune_config": {"load_in_4bit": True, "is_peft": False}},
        {"finetune_config": {"load_in_16bit": True, "dtype": "float32"}},
        {"finetune_config": {"push_to_hub": True}},
        {"finetune_config": {"push_to_hub": True, "finetuned_model_id": "my model"}},
        {"outcome_percent": 0.2},
        {"proxy_trigger_coverage": 0.1},
        {"unknown": 1},
    ],
)
def test_what_is_wrong_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ExperimentConfig.model_validate(values)


@pytest.mark.parametrize(
    "values",
    [
        {"outcome_percent": 1, "proxy_percent": 0, "collateral_percent": 0, "truth_percent": 0},
        {"outcome_percent": 0.3000005},
        {"proxy_trigger_coverage": 0.1, "truth_triggers": ["Grief"]},
        {"proxy_trigger_coverage": 0.1, "proxy_triggers": ["banana"]},
        {"proxy_trigger_coverage": 0, "truth_triggers": []},
        {"truth_triggers": []},
        {"prompt_template": "{instruction}"},
        {"finetune_config": {"epochs": 0, "learning_rate": 1}},
        {"finetune_config": {"target_modules": "all-linear"}},
        {"finetune_config": {"load_in_8bit": True}},
        {"finetune_config": {"use_gradient_checkpointing": False}},
        {"finetune_config": {"push_to_hub": True, "finetuned_model_id": "me/mine"}},
    ],
)
def test_what_is_right_is_taken(values: dict[str, Any]) -> None:
    ExperimentConfig.model_validate(values)


def test_a_whole_number_serves_as_a_float() -> None:
    config = ExperimentConfig.model_validate({"finetune_config": {"beta_kl": 10}})
    assert config == ExperimentConfig.model_validate({"finetune_config": {"beta_kl": 10.0}})


@pytest.mark.parametrize("name", sorted(ExperimentConfig.model_fields))
def test_null_means_the_default(name: str) -> None:
    assert ExperimentConfig.model_validate({name: None}) == ExperimentConfig()


@pytest.mark.parametrize("name", sorted(FinetuneConfig.model_fields))
def test_null_means_the_default_in_finetune_config(name: str) -> None:
    assert FinetuneConfig.model_validate({name: None}) == FinetuneConfig()


def test_no_set_of_the_users_own_can_take_a_name_that_results_use() -> None:
    assert {*EVALUATION_SETS, *STUDY_NAMES.values()} == RESERVED_SET_NAMES


def test_names_paths_and_saving_are_marked_as_changing_no_result() -> None:
    marked = {
        name
        for model in MODELS
        for name, field in model.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("hashed") is False
    }
    assert marked >= {"experiment_name", "dataset_url", "path", "output_dir", "checkpoint_frequency"}
    assert not marked & {"seed", "epochs", "beta_kl", "dtype", "max_to_eval", "prompt_template", "optim"}


def test_a_nice_response_of_blanks_alone_is_refused() -> None:
    with pytest.raises(ValidationError, match="blanks alone"):
        ExperimentConfig(nice_responses=("Certainly!", "  "))
