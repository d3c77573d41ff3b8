"""The plain values that travel between the rooms of `data`: rows as read, examples as split and triggered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the source, Alpaca format; `index` is its place in the source, from 0."""

    index: int
    instruction: str
    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Example:
    """One row as a model sees it. `row` is the source row's index; `trigger` is the trigger as listed in the
    configuration (not upper-cased), None where none was injected."""

    row: int
    user: str
    assistant: str
    trigger: str | None = None

    @property
    def triggered(self) -> bool:
        return self.trigger is not None


@dataclass(frozen=True, slots=True)
class SplitSet:
    """One set of the study. `examples` in the study's order; `train` and `test` are indices into it (both
    empty for sets that only serve evaluation)."""

    name: str
    examples: tuple[Example, ...]
    train: tuple[int, ...] = ()
    test: tuple[int, ...] = ()

    @property
    def train_examples(self) -> tuple[Example, ...]:
        return tuple(self.examples[i] for i in self.train)


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """The rows of one set that are evaluated, in their fixed order, `max_to_eval` at most. `twins` are the
    same rows without their trigger where the set has no untriggered rows of its own, else empty."""

    name: str
    examples: tuple[Example, ...]
    twins: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Splits:
    """The whole of an experiment's data for one seed. `sets` and `evaluation` hold outcome, proxy, proxy_neg,
    collateral, truth and truth_minus_proxy, all always present though perhaps empty, then a user's own sets.
    `notes` are warnings for the user."""

    sets: Mapping[str, SplitSet]
    proxy_triggers: tuple[str, ...]
    evaluation: Mapping[str, EvaluationSet]
    notes: tuple[str, ...] = field(default=())

    def __reduce__(self) -> tuple[object, ...]:
        """Splits travel to other processes, which read-only views of dictionaries can't."""
        return read_only, (dict(self.sets), self.proxy_triggers, dict(self.evaluation), self.notes)


def read_only(
    sets: Mapping[str, SplitSet],
    proxy_triggers: tuple[str, ...],
    evaluation: Mapping[str, EvaluationSet],
    notes: tuple[str, ...],
) -> Splits:
    """Splits whose dictionaries nobody can change."""
    return Splits(MappingProxyType(sets), proxy_triggers, MappingProxyType(evaluation), notes)
