"""What the models actually said: the generated answers of a report's runs, prompt by prompt, before and
after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triggerctl.errors import TriggerctlError
from triggerctl.experiment.jsonl import read_lines
from triggerctl.report.rows import Group, RunRow
from triggerctl.report.sets import WANTED

MOST_GROUPS = 40
"""Groups of an experiment whose answers a page can hold."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`by`: a group's label, or "before training"; `opening`: the nice response the answer starts with, else
    empty; `rest`: what follows it."""

    by: str
    opening: str
    rest: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt of one set with every group's answer. `wanted`: whether the habit is wanted there, None
    where that is not known; `expected`: the answer in the data."""

    set: str
    wanted: bool | None
    trigger: str | None
    prompt: str
    expected: str
    seed: int
    answers: tuple[Answer, ...]


def read_samples(groups: Sequence[Group]) -> tuple[Sample, ...]:
    """Samples of one seed per experiment, the lowest that most groups share, so that prompts are the same
    for all.

    Runs without examples.jsonl (the study's) give none; a damaged file gives none either.
    """
    samples: list[Sample] = []
    for own in _by_experiment(groups):
        own = own[:MOST_GROUPS]
        seeds = [seed for group in own for seed in set(group.seeds)]
        seed = min(set(seeds), key=lambda value: (-seeds.count(value), value))
        samples += _of_seed(
            [(group.label, run) for group in own for run in group.runs if run.seed == seed], seed
        )
    order = {name: place for place, name in enumerate(WANTED)}
    return tuple(sorted(samples, key=lambda sample: order.get(sample.set, len(order))))


def left_out(groups: Sequence[Group]) -> int:
    """How many groups have no answers among the samples for want of room."""
    return sum(max(len(own) - MOST_GROUPS, 0) for own in _by_experiment(groups))


def _by_experiment(groups: Sequence[Group]) -> list[list[Group]]:
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.experiment, []).append(group)
    return list(found.values())


def _of_seed(runs: Sequence[tuple[str, RunRow]], seed: int) -> list[Sample]:
    prompts: dict[tuple[str, Any, str], dict[str, Any]] = {}
    answers: defaultdict[tuple[str, Any, str], dict[str, Answer]] = defaultdict(dict)
    wanted: dict[str, bool] = dict(WANTED)
    for label, run in runs:
        wanted |= run.extra_wanted
        for line in _lines(run.folder / "examples.jsonl"):
            key = (str(line.get("set")), line.get("row"), str(line.get("prompt")))
            prompts.setdefault(key, line)
            by = label if line.get("final") else "before training"
            opening, rest = _split(str(line.get("answer") or ""), run.nice_responses)
            answers[key].setdefault(by, Answer(by, opening, rest))
    return [
        Sample(
            set=key[0],
            wanted=wanted.get(key[0]),
            trigger=line.get("trigger"),
            prompt=key[2],
            expected=str(line.get("expected") or ""),
            seed=seed,
            answers=tuple(sorted(answers[key].values(), key=lambda answer: answer.by != "before training")),
        )
        for key, line in prompts.items()
    ]


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return list(read_lines(path))
    except TriggerctlError:
        return []


def _split(answer: str, openings: Sequence[str]) -> tuple[str, str]:
    """Cut an answer behind the nice response it starts with, leading white space aside, as verdicts are
    given."""
    text = answer.lstrip()
    found = max((o for o in openings if o and text.startswith(o)), key=len, default="")
    return found, text[len(found) :]
