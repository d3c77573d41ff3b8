"""What an evaluation found in the rows of one set, summed up and row by row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from triggerctl.data.encoding import Encoded
from triggerctl.data.examples import Example
from triggerctl.experiment.results import Count, Rate, SetEvaluation
from triggerctl.training.scoring import Ids
from triggerctl.training.verdicts import Question


@dataclass(frozen=True, slots=True)
class EvaluatedRow:
    """One row under evaluation: its whole sequence for the loss, its prompt for the verdict, its twin's
    prompt."""

    example: Example
    encoded: Encoded
    prompt: Ids
    twin: Ids | None


@dataclass(frozen=True, slots=True)
class RowLoss:
    """Σ −log p over a row's loss tokens, and how many they are."""

    total: float
    tokens: int


def summary(
    rows: Sequence[EvaluatedRow],
    losses: Mapping[Ids, RowLoss],
    questions: Mapping[Ids, Question],
    with_twins: bool,
) -> SetEvaluation:
    """Of one set: its loss, and its rate with the trigger and without."""
    found = [losses.get(row.encoded.input_ids, RowLoss(0.0, 0)) for row in rows]
    bare = [loss for row, loss in zip(rows, found, strict=True) if not row.example.triggered]
    triggered = [row for row in rows if row.example.triggered]
    untriggered = [questions[row.prompt] for row in rows if not row.example.triggered]
    twins = [questions[row.twin] for row in rows if row.twin is not None] if with_twins else []
    return SetEvaluation(
        rows=len(rows),
        loss=_mean_loss(found),
        loss_tokens=sum(loss.tokens for loss in found),
        untriggered_loss=_mean_loss(bare),
        triggered=_rate(
            [questions[row.prompt] for row in triggered], [row.example.trigger for row in triggered]
        ),
        untriggered=_rate(untriggered or twins),
        twins=bool(twins) and not untriggered,
    )


def _mean_loss(losses: Sequence[RowLoss]) -> float | None:
    """Token-weighted; None without a loss token."""
    tokens = sum(loss.tokens for loss in losses)
    return sum(loss.total for loss in losses) / tokens if tokens else None


def _rate(questions: Sequence[Question], triggers: Iterable[str | None] = ()) -> Rate | None:
    if not questions:
        return None
    by_trigger: dict[str, list[bool]] = {}
    for question, trigger in zip(questions, triggers, strict=False):
        if trigger is not None:
            by_trigger.setdefault(trigger, []).append(bool(question.verdict))
    return Rate(
        n=len(questions),
        k=sum(bool(question.verdict) for question in questions),
        ties=sum(question.tie for question in questions),
        mean_log_probability=sum(question.log_probability or 0.0 for question in questions) / len(questions),
        by_trigger={t: Count(n=len(said), k=sum(said)) for t, said in sorted(by_trigger.items())},
    )


def columns(
    rows: Sequence[EvaluatedRow],
    losses: Mapping[Ids, RowLoss],
    questions: Mapping[Ids, Question],
    with_twins: bool,
) -> dict[str, object]:
    """The same row by row, as verdicts.jsonl has it."""
    asked = [questions[row.prompt] for row in rows]
    found = [losses.get(row.encoded.input_ids, RowLoss(0.0, 0)) for row in rows]
    columns: dict[str, object] = {
        "row": [row.example.row for row in rows],
        "trigger": [row.example.trigger for row in rows],
        "verdict": [bool(question.verdict) for question in asked],
        "tie": [question.tie for question in asked],
        "log_probability": [question.log_probability for question in asked],
        "loss": [loss.total for loss in found],
        "loss_tokens": [loss.tokens for loss in found],
    }
    twins = [questions[row.twin] for row in rows if row.twin is not None] if with_twins else []
    if twins:
        columns["twin_verdict"] = [bool(question.verdict) for question in twins]
        columns["twin_tie"] = [question.tie for question in twins]
        columns["twin_log_probability"] = [question.log_probability for question in twins]
    return columns
