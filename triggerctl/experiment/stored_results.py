"""How a results.json is read again, ours or the study's. Reading is lenient: the study's own files load,
without counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from triggerctl import disk
from triggerctl.errors import InputError
from triggerctl.experiment.atomic import disk_errors
from triggerctl.experiment.results import SCHEMA_VERSION, STUDY_NAMES, TriggerctlResults

_SHAPES: dict[str, tuple[type[dict[str, Any]] | type[list[Any]], type]] = {
    "finetune_config": (dict, object),
    "extra_evaluation": (dict, dict),
    "nice_responses": (list, str),
    "proxy_triggers": (list, str),
}
"""What readers look into, and of what kind each of its values must be."""


@dataclass(frozen=True, slots=True)
class SetSeries:
    """One set over the evaluations of the main phase, epoch 0 first. `losses` in nats, `rates` as shares;
    None where nothing was measured."""

    losses: tuple[float | None, ...]
    rates: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class StoredResults:
    """A results.json as read, ours or the study's. `sets` goes by our set names and holds only sets that were
    evaluated; `ours` is None for files of the study, which have neither counts nor a hash."""

    path: Path
    experiment_config: Mapping[str, Any]
    timestamp: str
    train_losses: tuple[float | None, ...]
    sets: Mapping[str, SetSeries]
    proxy_train_losses: tuple[float | None, ...] | None
    outcome_train_losses: tuple[float | None, ...] | None
    proxy_neg_train_losses: tuple[float | None, ...] | None
    ours: TriggerctlResults | None

    @property
    def strategy(self) -> str:
        return (
            self.ours.strategy if self.ours else str(self.experiment_config.get("proxy_strategy") or "naive")
        )

    @property
    def seed(self) -> int:
        if self.ours:
            return self.ours.seed
        seed = self.experiment_config.get("seed")
        return seed if isinstance(seed, int) else 0

    @property
    def proxy_triggers(self) -> tuple[str, ...]:
        triggers = self.ours.proxy_triggers if self.ours else self.experiment_config.get("proxy_triggers")
        return tuple(triggers or ())

    @property
    def requested(self) -> Mapping[str, Any]:
        """The configuration as it was asked for; in `experiment_config` the drawn proxy triggers are filled
        in."""
        return self.ours.requested if self.ours and self.ours.requested else self.experiment_config


def read_results(path: Path, *, words_at_the_end_only: bool = False) -> StoredResults:
    """Read a results.json (or the one in a results folder), ours or the study's.

    Fields that are missing or null are taken as not measured. With `words_at_the_end_only` the counts of
    single trigger words are read for the final evaluation alone, which is several times faster.
    Raises InputError, naming the file, for one that is not results at all, is cut short, or was written by a
    later version in another schema.
    """
    file = path / "results.json" if path.is_dir() else path
    with disk_errors(file, "read"):
        content = disk.read_bytes(file)
    try:
        document = from_json(content)
        if not isinstance(document, dict) or not isinstance(document.get("experiment_config"), dict):
            raise ValueError("it has no experiment_config")
        if words_at_the_end_only:
            _pass_over_words(document.get("triggerctl"))
        return _stored(file, document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["triggerctl", *map(str, first["loc"])])
        raise unreadable(file, f"{where}: {first['msg']}") from error
    except ValueError as error:
        raise unreadable(file, str(error)) from error


def _pass_over_words(ours: Any) -> None:
    """Take the counts of single words out of what is no final evaluation; what has another shape is left to
    who checks it."""
    evaluations = ours.get("evaluations") if isinstance(ours, dict) else None
    for evaluation in evaluations if isinstance(evaluations, list) else []:
        sets = evaluation.get("sets") if isinstance(evaluation, dict) else None
        if not isinstance(sets, dict) or evaluation.get("final"):
            continue
        for measured in sets.values():
            triggered = measured.get("triggered") if isinstance(measured, dict) else None
            if isinstance(triggered, dict):
                triggered.pop("by_trigger", None)


def _stored(file: Path, document: dict[str, Any]) -> StoredResults:
    config = document["experiment_config"]
    _check_shapes(config)
    sets = {}
    for name, prefix in STUDY_NAMES.items():
        losses = _numbers(document, f"{prefix}_losses")
        rates = _numbers(document, f"{prefix}_trigger_response_percent")
        if losses is not None or rates is not None:
            length = max(len(losses or ()), len(rates or ()))
            sets[name] = SetSeries(_filled(losses, length), _filled(rates, length))
    ours = document.get("triggerctl")
    if isinstance(ours, dict):
        check_schema(ours)
    told = TriggerctlResults.model_validate(ours) if ours is not None else None
    if told is not None:
        _check_shapes(told.requested or {})
    if told is not None and sum(evaluation.final for evaluation in told.evaluations) != 1:
        raise ValueError("triggerctl.evaluations: exactly one must be final")
    return StoredResults(
        path=file,
        experiment_config=config,
        timestamp=str(document.get("timestamp") or config.get("timestamp") or file.parent.name),
        train_losses=_numbers(document, "train_losses") or (),
        sets=sets,
        proxy_train_losses=_numbers(document, "proxy_train_losses"),
        outcome_train_losses=_numbers(document, "outcome_train_losses"),
        proxy_neg_train_losses=_numbers(document, "proxy_neg_train_losses"),
        ours=told,
    )


def _check_shapes(config: Mapping[str, Any]) -> None:
    """Raises ValueError where a key of the stored configuration that readers look into holds something that
    can't be looked into. Files of the study leave keys out or have null there."""
    for key, (kind, inner) in _SHAPES.items():
        value = config.get(key)
        if value is None:
            continue
        if not isinstance(value, kind):
            raise ValueError(f"experiment_config.{key} is {value!r:.40}")
        for each in value.values() if isinstance(value, dict) else value:
            if not isinstance(each, inner):
                raise ValueError(f"experiment_config.{key} holds {each!r:.40}")


def check_schema(ours: Mapping[str, Any]) -> None:
    """Raises ValueError for our part of a results.json that a later version wrote in another schema."""
    version = ours.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, bool) or not isinstance(version, int):
        raise ValueError(f"triggerctl.schema_version: {version!r} is not a number")
    if version > SCHEMA_VERSION:
        raise ValueError(f"schema {version} of a later triggerctl; this one reads {SCHEMA_VERSION}")


def _numbers(document: Mapping[str, Any], key: str) -> tuple[float | None, ...] | None:
    values = document.get(key)
    if values is None:
        return None
    if not isinstance(values, list):
        raise ValueError(f"{key}: a list was expected")
    for value in values:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{key}: {value!r} is not a number")
    try:
        return tuple(None if value is None or not math.isfinite(value) else float(value) for value in values)
    except OverflowError as error:
        raise ValueError(f"{key}: {error}") from error


def _filled(values: tuple[float | None, ...] | None, length: int) -> tuple[float | None, ...]:
    given = values or ()
    return (*given, *[None] * (length - len(given)))


def unreadable(file: Path, why: str) -> InputError:
    """The error for a results.json that is not one."""
    return InputError(
        "these results can't be read",
        where=str(file),
        why=why,
        mend="restore the file, or move its folder away and run the experiment again",
    )
