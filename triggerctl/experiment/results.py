"""What a finished run leaves behind: the shape of `results.json` and how it is read.

The outer fields are the published study's, name for name, so that anyone's scripts keep working; everything
the study did not have stands under `triggerctl`, typed and versioned. Reading is lenient: the study's own
files load, without counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from triggerctl import disk
from triggerctl.errors import InputError
from triggerctl.experiment.atomic import disk_errors

SCHEMA_VERSION = 1

EVALUATION_SETS = ("outcome", "proxy", "proxy_neg", "collateral", "truth", "truth_minus_proxy")
"""The sets every run evaluates, in the order they are shown; a user's `extra_evaluation` sets follow."""

STUDY_NAMES = {
    "outcome": "outcome",
    "proxy": "proxy",
    "collateral": "collateral",
    "truth": "truth",
    "truth_minus_proxy": "truth_no_proxy_labels",
}
"""Our set name → the prefix of the study's fields in `results.json`."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class Count(_Record):
    """k of n rows whose greedy answer opens with a nice response."""

    n: int
    k: int

    @model_validator(mode="after")
    def _is_a_part(self) -> Self:
        if not 0 <= self.k <= self.n:
            raise ValueError(f"{self.k} of {self.n} rows is no count")
        return self

    @property
    def rate(self) -> float | None:
        return self.k / self.n if self.n else None


class Rate(Count):
    """A count with what lies behind it. `mean_log_probability`: of the nice response's tokens, summed over
    tokens and averaged over rows (nats); `ties`: verdicts in which the two best logits lay within 1e-4."""

    ties: int = 0
    mean_log_probability: float | None = None
    by_trigger: dict[str, Count] = Field(default_factory=dict)


class SetEvaluation(_Record):
    """One evaluation set at one moment. `loss` is token-weighted cross-entropy in nats, `untriggered_loss`
    that of the rows without a trigger, None where there are none; `triggered` is the trigger response rate,
    None where no row carries a trigger; `untriggered` holds the false positives: the set's own untriggered
    rows or, for a set that has none, its untriggered twins (then `twins` is true), None where
    neither was evaluated."""

    rows: int
    loss: float | None
    loss_tokens: int
    untriggered_loss: float | None = None
    triggered: Rate | None = None
    untriggered: Rate | None = None
    twins: bool = False


class Evaluation(_Record):
    """All sets at one moment of a run. `epoch` may be a fraction after `max_steps`; exactly one is `final`.
    `note`: what was done to the weights just before, where a strategy changes them after training."""

    label: str
    phase: str = "main"
    epoch: float
    step: int
    final: bool = False
    note: str | None = None
    sets: dict[str, SetEvaluation]


class SetData(_Record):
    """How many rows a set gave to training and to evaluation, and what became of them on the way."""

    rows: int
    triggered: int
    train: int = 0
    evaluated: int = 0
    truncated: int = 0
    dropped: int = 0


class TriggerctlResults(_Record):
    """Everything ours in `results.json`."""

    schema_version: int = SCHEMA_VERSION
    hash: str
    strategy: str
    seed: int
    proxy_triggers: list[str]
    evaluations: list[Evaluation]
    data_sha256: str
    sets: dict[str, SetData]
    warnings: list[str] = Field(default_factory=list)
    timings: dict[str, float] = Field(default_factory=dict)
    tokens: dict[str, int] = Field(default_factory=dict)
    throughput: dict[str, float] = Field(default_factory=dict)
    memory: dict[str, float] = Field(default_factory=dict)
    resolved: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)
    requested: dict[str, Any] = Field(default_factory=dict)
    cache_entries: list[str] = Field(default_factory=list)

    @property
    def final(self) -> Evaluation:
        return next(e for e in self.evaluations if e.final)


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


def results_document(
    config: Mapping[str, Any],
    ours: TriggerctlResults,
    *,
    timestamp: str,
    train_losses: Sequence[float | None],
    proxy_train_losses: Sequence[float | None] | None = None,
    outcome_train_losses: Sequence[float | None] | None = None,
    proxy_neg_train_losses: Sequence[float | None] | None = None,
) -> dict[str, Any]:
    """What results.json holds: every field of the study's, in its order and shape, and ours under
    `triggerctl`.

    config:       the configuration as it was asked for, as plain JSON, `finetune_config` nested.
    timestamp:    the results folder's name.
    train_losses: the mean training loss of each epoch of the main phase.

    The lists of the study hold the main phase's evaluations in their order. A set that was not evaluated, or
    has no rate because no row of it carries a trigger, has null in place of the list.
    """
    main = [evaluation for evaluation in ours.evaluations if evaluation.phase == "main"]
    document: dict[str, Any] = {
        "experiment_config": {
            **config,
            "proxy_strategy": ours.strategy,
            "seed": ours.seed,
            "proxy_triggers": list(ours.proxy_triggers),
            "timestamp": timestamp,
        },
        "train_losses": list(train_losses),
    }
    for name in ("proxy", "outcome", "truth", "truth_minus_proxy", "collateral"):
        at = [evaluation.sets.get(name) for evaluation in main]
        prefix = STUDY_NAMES[name]
        document[f"{prefix}_losses"] = _or_null([moment.loss if moment else None for moment in at])
        document[f"{prefix}_trigger_response_percent"] = _or_null(
            [moment.triggered.rate if moment and moment.triggered else None for moment in at]
        )
    document["timestamp"] = timestamp
    document["proxy_train_losses"] = _list_or_none(proxy_train_losses)
    document["outcome_train_losses"] = _list_or_none(outcome_train_losses)
    document["proxy_neg_train_losses"] = _list_or_none(proxy_neg_train_losses)
    requested = ours.model_copy(update={"requested": dict(config)})
    document["triggerctl"] = requested.model_dump(mode="json")
    return document


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


def _or_null(values: list[float | None]) -> list[float | None] | None:
    return values if any(value is not None for value in values) else None


def _list_or_none(values: Sequence[float | None] | None) -> list[float | None] | None:
    return None if values is None else list(values)


def unreadable(file: Path, why: str) -> InputError:
    """The error for a results.json that is not one."""
    return InputError(
        "these results can't be read",
        where=str(file),
        why=why,
        mend="restore the file, or move its folder away and run the experiment again",
    )
