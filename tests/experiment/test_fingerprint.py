"""pytest tests/experiment/test_fingerprint.py"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from triggerctl.config.load import load_config
from triggerctl.config.models import ExperimentConfig, FinetuneConfig
from triggerctl.experiment.fingerprint import (
    HASH_VERSION,
    STRATEGY_KEYS,
    config_hash,
    differences,
    published_key,
)
from triggerctl.strategies import names as strategy_names
from triggerctl.strategies import strategy_class

TEMPLATES = Path(__file__).parents[2] / "templates"
BASE: dict[str, Any] = {
    "experiment_name": "demo",
    "max_dataset_size": 500,
    "truth_triggers": ["Sadness", "Grief"],
    "proxy_strategy": "kl_divergence",
    "seed": 5,
    "finetune_config": {"model": "builtin:tiny", "beta_kl": 0.5, "epochs": 3, "target_modules": ["q_proj"]},
}
GOLDEN = "1-8cdefea61f128da4c4db"
"""Of BASE, written down when version 1 was made. Were it to change, every finished run would look new to its
user."""


def make(**changes: Any) -> ExperimentConfig:
    values = json.loads(json.dumps(BASE))
    finetune = changes.pop("finetune", {})
    values.update(changes)
    values["finetune_config"].update(finetune)
    return ExperimentConfig.model_validate(values)


def hash_of(config: ExperimentConfig, **changes: Any) -> str:
    return config_hash(config, **{"data_sha256": "d" * 64, "model_identity": "m" * 64, **changes})


def test_the_hash_of_a_configuration_is_what_it_was_in_earlier_versions() -> None:
    assert hash_of(make(), reads=frozenset({"beta_kl", "proxy_cycling_mode"})) == GOLDEN


def test_the_hashes_of_many_configurations_are_what_they_were() -> None:
    """Every template with every strategy: `{"template strategy": hash}`, written down once."""
    frozen = json.loads((Path(__file__).parent / "hashes_of_version_1.json").read_text(encoding="utf-8"))
    found = {}
    for path in sorted(TEMPLATES.glob("*/config.json")):
        for strategy in strategy_names():
            config = load_config(path).config.model_copy(update={"proxy_strategy": strategy})
            reads = strategy_class(strategy).reads
            name = f"{path.parent.name} {strategy}"
            found[name] = hash_of(config, strategy=strategy, reads=reads)
    assert found == frozen, "a hash that changes makes finished runs look new: it needs a new HASH_VERSION"


def test_no_default_differs_from_what_this_hash_version_stands_for() -> None:
    recorded = json.loads(
        (Path(__file__).parent / f"defaults_of_hash_version_{HASH_VERSION}.json").read_text()
    )
    default = ExperimentConfig()
    changed = {key: value for key, value, _ in differences(unflat(recorded), default)}
    assert changed == {}, "a changed default needs a new HASH_VERSION and a new record"


def unflat(values: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as `finetune_config` nested."""
    prefix = "finetune_config."
    top: dict[str, Any] = {key: value for key, value in values.items() if not key.startswith(prefix)}
    inner = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
    return top | {"finetune_config": inner}


def test_a_key_left_at_its_default_does_not_count() -> None:
    default = FinetuneConfig().weight_decay
    assert hash_of(make(finetune={"weight_decay": default})) == hash_of(make())
    assert hash_of(make(finetune={"weight_decay": None})) == hash_of(make())


@pytest.mark.parametrize(
    "changes",
    [
        {"experiment_name": "other"},
        {"dataset_url": "elsewhere.json"},
        {"finetune": {"model": "./a/copy"}},
        {"finetune": {"save_model_locally": True}},
        {"finetune": {"logging_steps": 10}},
        {"finetune": {"per_device_eval_batch_size": 4}},
        {"finetune": {"output_dir": "there"}},
        {"finetune": {"use_gradient_checkpointing": True}},
    ],
)
def test_names_paths_saving_logging_and_evaluation_batch_do_not_count(changes: dict[str, Any]) -> None:
    assert hash_of(make(**changes)) == hash_of(make())


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 6},
        {"truth_triggers": ["Grief", "Sadness"]},
        {"prompt_template": "{instruction}"},
        {"finetune": {"learning_rate": 2e-5}},
        {"finetune": {"beta_kl": 0.25}},
        {"finetune": {"dtype": "float32"}},
        {"finetune": {"proxy_neg_content": "random"}},
        {"extra_evaluation": {"mine": {"path": "mine.json"}}},
    ],
)
def test_what_changes_a_result_counts(changes: dict[str, Any]) -> None:
    reads = frozenset({"beta_kl"})
    assert hash_of(make(**changes), reads=reads) != hash_of(make(), reads=reads)


def test_data_model_and_the_users_sets_count_by_content() -> None:
    one = hash_of(make())
    assert hash_of(make(), data_sha256="e" * 64) != one
    assert hash_of(make(), model_identity="n" * 64) != one
    assert hash_of(make(), extra_data={"mine": "f" * 64}) != one
    first = make(extra_evaluation={"mine": {"path": "a.json", "nice": True}})
    moved = make(extra_evaluation={"mine": {"path": "b.json", "nice": True}})
    assert hash_of(first) == hash_of(moved)
    assert hash_of(first) != hash_of(make(extra_evaluation={"mine": {"path": "a.json"}}))


def test_ten_and_ten_point_nought_are_one_run() -> None:
    assert hash_of(make(finetune={"beta_kl": 10})) == hash_of(make(finetune={"beta_kl": 10.0}))


def test_an_alias_and_the_full_name_are_one_run() -> None:
    alias = make(proxy_strategy="kl")
    assert hash_of(alias) != hash_of(make())
    assert hash_of(alias, strategy="kl_divergence") == hash_of(make())


def test_cells_that_differ_only_in_keys_their_strategy_does_not_read_are_one_run() -> None:
    reads = frozenset({"beta_kl"})
    one, other = make(finetune={"lambda_1": 3.0, "positive_proxy": "proxy"}), make()
    assert hash_of(one, reads=reads) == hash_of(other, reads=reads)
    assert hash_of(one) != hash_of(other)
    assert hash_of(one, reads=reads | {"lambda_1"}) != hash_of(other, reads=reads | {"lambda_1"})


def test_every_strategy_key_is_a_key_of_the_configuration() -> None:
    assert set(FinetuneConfig.model_fields) >= STRATEGY_KEYS


def test_differences_name_key_and_both_values_in_order() -> None:
    other = make(
        seed=6, experiment_name="x", finetune={"beta_kl": 1, "learning_rate": 1e-3, "logging_steps": 9}
    )
    assert differences(make(), other) == [
        ("seed", 5, 6),
        ("finetune_config.learning_rate", 1e-5, 1e-3),
        ("finetune_config.beta_kl", 0.5, 1),
    ]
    assert differences(make(), make()) == []


def test_differences_read_a_stored_configuration_with_missing_null_and_foreign_keys() -> None:
    stored = make(seed=6).model_dump(mode="json")
    assert differences(stored, make(seed=6)) == []
    stored["unheard_of"] = 1
    stored["finetune_config"]["lambda_2"] = 1
    stored["finetune_config"]["weight_decay"] = None
    del stored["finetune_config"]["r"]
    assert differences(stored, make()) == [("seed", 6, 5)]


def test_repetitions_of_the_study_have_one_key_and_other_seeds_another() -> None:
    raw = make().model_dump(mode="json")
    again = json.loads(json.dumps(raw)) | {"timestamp": "20250506_224633", "experiment_name": "again"}
    again["finetune_config"]["finetuned_model_id"] = "someone/model_20250506"
    again["finetune_config"]["lambda_2"] = 0.0
    assert published_key(raw) == published_key(again)
    assert published_key(raw) != published_key(raw | {"seed": 6})
    assert published_key(raw) != published_key(raw | {"dataset_url": "other.json"})


def test_the_module_needs_no_torch() -> None:
    code = (
        "import sys, triggerctl.experiment.fingerprint, triggerctl.experiment.overview;"
        "sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
