"""Fine-tuning on the task alone: the floor with no alignment data at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from triggerctl.config.models import ExperimentConfig
from triggerctl.strategies.base import Check, Strategy, Term, cross_entropy


class OutcomeOnly(Strategy):
    """min CE over outcome."""

    name = "outcome_only"
    aliases = ("task_trained",)
    summary = "fine-tuning on outcome alone, no alignment data"
    formula = "L = CE(outcome)"

    @classmethod
    def check(cls, config: ExperimentConfig) -> Check:
        if config.proxy_strategy != "task_trained":
            return Check()
        study = "The published study ran its naive trainer under that name."
        return Check(warnings=(f"task_trained is outcome_only here: no proxy data. {study}",))

    def streams(self) -> Mapping[str, tuple[str, ...]]:
        return {"outcome": ("outcome",)}

    def terms(self) -> Sequence[Term]:
        return (cross_entropy("outcome"),)
