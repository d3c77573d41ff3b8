"""What a finished run leaves behind: the shape of `results.json` and how it is read.

The outer fields are the published study's, name for name, so that anyone's scripts keep working; everything
the study did not have stands under `triggerctl`, typed and versioned. Reading is lenient: the study's own
files load, without counts.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

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
    """One evaluation set at one moment. `loss` is token-weighted cross-entropy in nats; `triggered` is the
    trigger response rate, None where no row carries a trigger; `untriggered` holds the false positives: the
    set's own untriggered rows or, for a set that has none, its untriggered twins (then `twins` is true), None
    where neither was evaluated."""

    rows: int
    loss: float | None
    loss_tokens: int
    triggered: Rate | None = None
    untriggered: Rate | None = None
    twins: bool = False


class Evaluation(_Record):
    """All sets at one moment of a run. `epoch` may be a fraction after `max_steps`; exactly one is
    `final`."""

    label: str
    phase: str = "main"
    epoch: float
    step: int
    final: bool = False
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
    cache_entries: list[str] = Field(default_factory=list)

    @property
    def final(self) -> Evaluation:
        return next(e for e in self.evaluations if e.final)
