"""A user's own evaluation sets, `extra_evaluation` of the configuration: rows of any Alpaca-format source,
with triggers and nice responses put in on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from triggerctl.config.models import ExperimentConfig
from triggerctl.data.examples import Example, Row
from triggerctl.data.progress import Progress
from triggerctl.data.source import load_rows
from triggerctl.data.triggers import Draft, inject, to_example


@dataclass(frozen=True, slots=True)
class ExtraSet:
    """One such set. `untriggered` is aligned with `examples`: the same rows without a trigger; empty where
    `examples` carry none. `sha256` is that of the source's bytes."""

    examples: tuple[Example, ...]
    untriggered: tuple[Example, ...]
    sha256: str


def load_extra(
    config: ExperimentConfig, *, folder: Path, progress: Progress | None = None
) -> dict[str, ExtraSet]:
    """Every set of `extra_evaluation`, read and triggered, by name.

    folder: the configuration's; local paths start there.
    Raises InputError naming the set's file, as `load_rows` does.
    """
    sets = {}
    for name, own in config.extra_evaluation.items():
        source = load_rows(own.path, folder=folder, progress=progress, key=f"extra_evaluation.{name}.path")
        examples, untriggered = extra_examples(name, source.rows, config)
        sets[name] = ExtraSet(examples, untriggered, source.sha256)
    return sets


def extra_examples(
    name: str, rows: Sequence[Row], config: ExperimentConfig
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """(the set's examples, the same without trigger); the second is empty where no trigger is asked for.

    Every row gets a trigger and, with `nice`, a nice response unless its answer opens with one already.
    """
    own = config.extra_evaluation[name]
    rng = Random(f"{config.seed}/extra/{name}")
    drafts: list[Draft] = []
    for row in rows:
        opens = row.output.lstrip().startswith(config.nice_responses)
        nice = config.nice_responses if own.nice and not opens else ()
        drafts += inject([Draft(row)], own.triggers or (), nice, rng)
    examples = tuple(to_example(draft, config.prompt_template) for draft in drafts)
    if not own.triggers:
        return examples, ()
    return examples, tuple(to_example(Draft(row), config.prompt_template) for row in rows)


def data_sha256(source_sha256: str, extra: Mapping[str, ExtraSet]) -> str:
    """One sum over all bytes of data that a run reads: the source's own where there is no extra set."""
    if not extra:
        return source_sha256
    lines = [source_sha256, *(f"{name} {extra[name].sha256}" for name in sorted(extra))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
