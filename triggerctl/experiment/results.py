"""What a finished run leaves behind: the shape of `results.json`, as it is written.

The outer fields are the published study's, name for name, so that anyone's scripts keep working; everything
the study did not have stands under `triggerctl`, typed and versioned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


def _or_null(values: list[float | None]) -> list[float | None] | None:
    return values if any(value is not None for value in values) else None


def _list_or_none(values: Sequence[float | None] | None) -> list[float | None] | None:
    return None if values is None else list(values)
