"""The hash that says whether two runs are the same run: it covers what changes a result, and nothing else.

Covered: every value that differs from its default, as it was asked for ("auto" stays "auto"), the strategy's
full name, the data's bytes, the model's identity. Not covered: names, paths, saving, logging, hub, evaluation
batch, checkpointing (the fields marked `hashed: false`) and, given what the strategy reads, the options of
other strategies. Because defaults are left out, a key that an upgrade adds does not make finished work look
new; an upgrade that changes a default, or how a run computes, must raise `HASH_VERSION`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from triggerctl.config.models import (
    LEGACY_EXPERIMENT_KEYS,
    LEGACY_FINETUNE_KEYS,
    ExperimentConfig,
    FinetuneConfig,
)
from triggerctl.config.paths import shown_url

HASH_VERSION = 1

STRATEGY_KEYS = frozenset(
    {
        "add_proxy_gradients",
        "alpha_scheduler_type",
        "alpha_warmup_steps",
        "beta",
        "beta_kl",
        "beta_representation",
        "calc_alignment_plane_using_fully_finetuned_weights",
        "direct_steering",
        "dpo_length_normalized",
        "final_steering_alpha",
        "lambda_1",
        "lambda_dpo",
        "lambda_proxy",
        "load_steering_vector",
        "neg_lambda_proxy",
        "negative_proxy",
        "outcome_epochs",
        "positive_proxy",
        "project_along_positive_proxy_grad",
        "project_strictly_orthogonal",
        "proxy_cycling_mode",
        "proxy_epochs",
        "safe_lora_num_proj_layers",
        "safe_lora_sweep_thresholds",
        "safe_lora_threshold",
        "safe_lora_type",
        "safe_lora_unaligned_model",
        "steering_alpha",
    }
)
"""Keys of `finetune_config` that only some strategies read. `proxy_neg_content` is not among them: it decides
what the proxy_neg set is, which every run evaluates."""

_NAMED_BY_IDENTITY = frozenset(
    {
        "dataset_url",
        "finetune_config.model",
        "finetune_config.revision",
        "finetune_config.safe_lora_unaligned_model",
    }
)
"""Covered by the data's and the model's own identity, so that a moved file is still the same file."""

_NOTHING: Mapping[str, str] = MappingProxyType({})


def config_hash(
    config: ExperimentConfig,
    *,
    data_sha256: str,
    model_identity: str,
    strategy: str | None = None,
    reads: frozenset[str] | None = None,
    extra_data: Mapping[str, str] = _NOTHING,
) -> str:
    """The run's identity, `<version>-<20 hexadecimal digits>`.

    data_sha256:    of the data source's bytes.
    model_identity: of the checkpoint, its resolved revision or its content included.
    strategy:       the strategy's full name, where the configuration gives an alias.
    reads:          which of `STRATEGY_KEYS` the strategy reads; the others are left out. None: all count.
    extra_data:     further content by name, e.g. the SHA-256 of a set of `extra_evaluation`.
    """
    unread = frozenset[str]() if reads is None else STRATEGY_KEYS - reads
    left_out = _NAMED_BY_IDENTITY | {f"finetune_config.{key}" for key in unread} | {"proxy_strategy"}
    values = {
        key: _plain(value)
        for key, field, value in _fields_of(config)
        if _is_hashed(field) and key not in left_out and _plain(value) != _plain(_default(field))
    }
    identity = {
        "version": HASH_VERSION,
        "strategy": strategy or config.proxy_strategy,
        "data": data_sha256,
        "model": model_identity,
        "extra_data": dict(extra_data),
        "values": values,
    }
    return f"{HASH_VERSION}-{_digest(identity)}"


def hashed_values(config: ExperimentConfig) -> dict[str, object]:
    """Every value that can change a result, by its dotted key, defaults included; data and model have
    identities of their own."""
    return {
        key: _plain(value)
        for key, field, value in _fields_of(config)
        if _is_hashed(field) and key not in _NAMED_BY_IDENTITY
    }


def published_key(raw: Mapping[str, Any]) -> str:
    """An identity for results that carry no hash (the published study's): of the configuration stored in
    them, without what can't change a result. Two of the study's runs with one key are repetitions."""
    finetune = raw.get("finetune_config")
    flat = {key: value for key, value in raw.items() if key != "finetune_config"}
    flat |= {f"finetune_config.{key}": value for key, value in _items(finetune)}
    ignored = set(LEGACY_EXPERIMENT_KEYS) | {f"finetune_config.{key}" for key in LEGACY_FINETUNE_KEYS}
    ignored |= {key for key, field in _fields(ExperimentConfig) if not _is_hashed(field)} - _NAMED_BY_IDENTITY
    kept = {key: _plain(value) for key, value in flat.items() if key not in ignored and value is not None}
    return f"study-{_digest(kept)}"


def differences(
    first: ExperimentConfig | Mapping[str, Any], second: ExperimentConfig | Mapping[str, Any]
) -> list[tuple[str, object, object]]:
    """What differs between two configurations among the keys that can change a result: (dotted key, first's
    value, second's value), in the order of the configuration. A mapping is a configuration as stored in
    results; keys it lacks have their default, keys unknown here are passed over. `dataset_url`, `model` and
    `revision` are named too, for they may be why the data or the model differs."""
    one, two = _flat(first), _flat(second)
    return [
        (key, a, b)
        for key, default in _told_apart().items()
        if (a := one.get(key, default)) != (b := two.get(key, default))
    ]


@cache
def _told_apart() -> dict[str, object]:
    """The keys that `differences` looks at, with their plain defaults; reports ask for thousands of runs."""
    return {
        key: _plain(_default(field))
        for key, field in _fields(ExperimentConfig)
        if _is_hashed(field) or key in _NAMED_BY_IDENTITY
    }


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field with its dotted key, those of `finetune_config` in its place."""
    for name, field in model.model_fields.items():
        if field.annotation is FinetuneConfig:
            yield from _fields(FinetuneConfig, f"{name}.")
        else:
            yield prefix + name, field


def _fields_of(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, FieldInfo, object]]:
    for key, field in _fields(type(config), prefix):
        value: object = config
        for part in key.split("."):
            assert isinstance(value, BaseModel)
            value = vars(value)[part]
        yield key, field, value


def _flat(config: ExperimentConfig | Mapping[str, Any]) -> dict[str, object]:
    """Dotted key → plain value, where one is given."""
    if isinstance(config, ExperimentConfig):
        flat = {key: _plain(value) for key, _, value in _fields_of(config)}
        return flat | {"dataset_url": shown_url(config.dataset_url)}
    flat = {key: _plain(value) for key, value in config.items() if key != "finetune_config"}
    flat |= {f"finetune_config.{key}": _plain(value) for key, value in _items(config.get("finetune_config"))}
    flat = {key: value for key, value in flat.items() if value is not None}
    # In results an address stands without its secrets.
    return flat | {"dataset_url": shown_url(str(flat["dataset_url"]))} if "dataset_url" in flat else flat


def _items(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        yield from value.items()


def _is_hashed(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return not (isinstance(extra, dict) and extra.get("hashed") is False)


def _default(field: FieldInfo) -> object:
    default: object = field.get_default(call_default_factory=True)
    return default


_PLAIN = frozenset({str, int, bool})


def _plain(value: object) -> object:
    """Plain JSON, in which equal values are spelt alike: 10.0 as 10, tuples as lists; of a model inside (a
    set of `extra_evaluation`) the hashed fields that differ from their default."""
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, BaseModel):
        return {
            key: _plain(inner)
            for key, field, inner in _fields_of(value)
            if _is_hashed(field) and _plain(inner) != _plain(_default(field))
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _digest(value: object) -> str:
    # Not a number, which only a stored configuration can hold, is spelt NaN.
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]
