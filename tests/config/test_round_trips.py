"""Any configuration, written down and read again. Run: pytest tests/config/test_round_trips.py"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from triggerctl.config.jsonc import parse
from triggerctl.config.load import load_config, parse_config, resolved_document
from triggerctl.config.models import ExperimentConfig
from triggerctl.config.overrides import make_override
from triggerctl.experiment.fingerprint import config_hash

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=8)
TRIGGERS = st.lists(WORDS, max_size=4, unique=True)
SHARES = st.tuples(*[st.integers(1, 9)] * 4)
FINETUNE = {
    "epochs": st.integers(0, 50),
    "learning_rate": st.floats(1e-8, 1.0, exclude_min=True),
    "r": st.integers(1, 128),
    "beta_kl": st.floats(0.0, 100.0),
    "warmup_steps": st.integers(0, 100),
    "target_modules": st.lists(st.sampled_from(["q_proj", "k_proj", "down_proj"]), min_size=1, unique=True),
    "loss_on": st.sampled_from(["all", "response"]),
    "steering_vector_path": st.none() | WORDS,
    "save_datasets": st.booleans(),
}
TOP = {
    "seed": st.integers(0, 2**63 - 1),
    "experiment_name": WORDS,
    "max_dataset_size": st.integers(1, 10**6),
    "outcome_triggers": TRIGGERS,
    "nice_responses": st.lists(WORDS, min_size=1, max_size=3, unique=True),
    "proxy_trigger_coverage": st.floats(0.0, 1.0),
    "outcome_trigger_percent": st.floats(0.0, 1.0),
    "proxy_strategy": st.sampled_from(["naive", "kl_divergence", "dpo"]),
}


@st.composite
def given_values(draw: st.DrawFn) -> dict[str, Any]:
    """What someone may have written: any part of the keys, with shares that sum to one."""
    # Without truth triggers a coverage that is given has nothing to draw from.
    truth = st.lists(WORDS, min_size=1, max_size=4, unique=True)
    values = draw(st.fixed_dictionaries({"truth_triggers": truth}, optional=TOP))
    values["finetune_config"] = draw(st.fixed_dictionaries({}, optional=FINETUNE))
    if draw(st.booleans()):
        parts = draw(SHARES)
        names = ("outcome_percent", "proxy_percent", "collateral_percent", "truth_percent")
        values |= {name: part / sum(parts) for name, part in zip(names, parts, strict=True)}
    return values


def hash_of(config: ExperimentConfig) -> str:
    return config_hash(config, data_sha256="d" * 64, model_identity="m" * 64)


@settings(max_examples=30, deadline=None)
@given(values=given_values(), indent=st.sampled_from([None, 0, 2]), ascii_only=st.booleans())
def test_a_configuration_is_the_same_from_its_file_its_values_and_its_dump(
    values: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "exp" / "config.json"
        path.parent.mkdir()
        path.write_text(json.dumps(values, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
        loaded = load_config(path)
        parsed = parse_config(values, path=path)
        again = parse_config(dict(loaded.given), path=path)
        dumped = parse_config(loaded.config.model_dump(mode="json"), path=path)
    assert loaded.config == parsed.config == again.config == dumped.config
    assert hash_of(loaded.config) == hash_of(dumped.config)
    assert loaded.given == parsed.given


@settings(max_examples=20, deadline=None)
@given(values=given_values())
def test_the_resolved_document_holds_the_values_and_is_json(values: dict[str, Any]) -> None:
    loaded = parse_config(values, path=Path("exp") / "config.json")
    document = json.loads(json.dumps(resolved_document(loaded)))

    def plain(told: dict[str, Any]) -> dict[str, Any]:
        return {k: each["value"] if "from" in each else plain(each) for k, each in told.items()}

    assert plain(document) == loaded.config.model_dump(mode="json")
    assert parse(json.dumps(document), "it").value == document


@settings(max_examples=20, deadline=None)
@given(values=given_values(), data=st.data())
def test_an_override_is_the_same_as_the_value_in_the_file(
    values: dict[str, Any], data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(sorted(FINETUNE)))
    value = data.draw(FINETUNE[key])
    override = make_override(key, value, origin="it", where="it")
    path = Path("exp") / "config.json"
    inside = {**values, "finetune_config": {**values["finetune_config"], key: value}}
    set_there = parse_config(values, path=path, overrides=[override]).config
    assert set_there == parse_config(inside, path=path).config
