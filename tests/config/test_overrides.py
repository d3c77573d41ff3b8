"""pytest tests/config/test_overrides.py"""

from __future__ import annotations

import pytest

from triggerctl.config.models import ExperimentConfig, FinetuneConfig
from triggerctl.config.overrides import apply_overrides, make_override, parse_override
from triggerctl.errors import InputError, Problem


def problem(text: str) -> Problem:
    with pytest.raises(InputError) as caught:
        parse_override(text)
    return caught.value.problems[0]


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("epochs=3", "finetune_config.epochs", 3),
        ("finetune_config.epochs=3", "finetune_config.epochs", 3),
        ("seed=7", "seed", 7),
        ("beta_kl=10", "finetune_config.beta_kl", 10),
        ("learning_rate=1e-3", "finetune_config.learning_rate", 1e-3),
        ("is_peft=false", "finetune_config.is_peft", False),
        ("use_gradient_checkpointing=auto", "finetune_config.use_gradient_checkpointing", "auto"),
        ("use_gradient_checkpointing=true", "finetune_config.use_gradient_checkpointing", True),
        ("experiment_name=5", "experiment_name", "5"),
        ("experiment_name=true", "experiment_name", "true"),
        ('experiment_name="quoted"', "experiment_name", "quoted"),
        ("experiment_name=a=b", "experiment_name", "a=b"),
        ("finetuned_model_id=null", "finetune_config.finetuned_model_id", None),
        ("max_steps=null", "finetune_config.max_steps", None),
        ("dataset_url=//server/rows.json", "dataset_url", "//server/rows.json"),
        ('outcome_triggers=["a","b"]', "outcome_triggers", ["a", "b"]),
        ("target_modules=all-linear", "finetune_config.target_modules", "all-linear"),
        ("extra_evaluation.mine.path=5", "extra_evaluation.mine.path", "5"),
        ("extra_evaluation.mine.nice=true", "extra_evaluation.mine.nice", True),
        ('extra_evaluation={"m": {"path": "x"}}', "extra_evaluation", {"m": {"path": "x"}}),
        ('nice_responses=["Sure!"]', "nice_responses", ["Sure!"]),
        ("save_steps=5", "finetune_config.save_steps", 5),
    ],
)
def test_the_key_decides_what_the_value_is(text: str, key: str, value: object) -> None:
    override = parse_override(text)
    assert override.key == tuple(key.split("."))
    assert repr(override.value) == repr(value)
    assert override.origin == "command line"
    assert override.where == f"--set {text}"


def test_every_key_can_be_set_by_its_bare_name() -> None:
    assert not ExperimentConfig.model_fields.keys() & FinetuneConfig.model_fields.keys()
    for name in FinetuneConfig.model_fields:
        assert parse_override(f"{name}=null").key == ("finetune_config", name)
    for name in ExperimentConfig.model_fields.keys() - {"finetune_config"}:
        assert parse_override(f"{name}=null").key == (name,)


@pytest.mark.parametrize(
    ("text", "says", "mend"),
    [
        ("epoch=3", "not known", 'did you mean "finetune_config.epochs"?'),
        ("finetune_config.epoch=3", "not known", 'did you mean "epochs"?'),
        ("finetune.epochs=3", "not known", 'did you mean "finetune_config"?'),
        ("Epochs=3", "not known", 'did you mean "finetune_config.epochs"?'),
        ("proxy-strategy=kl", "not known", 'did you mean "proxy_strategy"?'),
        ("finetune_config.seed=3", "wrong level", "its place: seed"),
        ("finetune_config={}", "as a whole", "set its keys, such as finetune_config.epochs"),
        ("seed.x=3", "holds nothing by name", "set seed itself"),
        ("extra_evaluation.mine.pth=x", "not known", 'did you mean "path"?'),
        ("epochs", "takes key=value", "such as --set epochs=3"),
        ("=3", "not known", "triggerctl validate --schema lists every key"),
    ],
)
def test_a_key_that_is_wrong_is_answered_with_the_right_one(text: str, says: str, mend: str) -> None:
    found = problem(text)
    assert says in found.what
    assert found.mend == mend
    assert found.where == f"--set {text}"


def test_another_option_is_named_instead_of_set() -> None:
    with pytest.raises(InputError) as caught:
        parse_override("betta_kl=1", origin="sweep cell", option="--param")
    assert caught.value.problems[0].where == "--param betta_kl=1"


def test_a_cells_value_is_taken_as_it_is() -> None:
    override = make_override("beta_kl", "10", origin="sweep cell", where="sweep.json, kl[0]")
    assert override.key == ("finetune_config", "beta_kl")
    assert override.value == "10"


def test_overrides_leave_the_values_they_are_put_into_alone() -> None:
    values = {"seed": 1, "finetune_config": {"epochs": 1, "r": 4}}
    overrides = [parse_override("epochs=2"), parse_override("extra_evaluation.m.path=x")]
    assert apply_overrides(values, overrides) == {
        "seed": 1,
        "finetune_config": {"epochs": 2, "r": 4},
        "extra_evaluation": {"m": {"path": "x"}},
    }
    assert values == {"seed": 1, "finetune_config": {"epochs": 1, "r": 4}}
