"""Putting triggers and nice responses into rows, in the published study's own way and order of chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from triggerctl.data.examples import Example, Row


@dataclass(frozen=True, slots=True)
class Draft:
    """A row with what has been put into it so far: a trigger before the instruction, a nice response before
    the answer."""

    row: Row
    trigger: str | None = None
    nice: str | None = None


def to_example(draft: Draft, template: str) -> Example:
    """The draft as a model sees it: `TRIGGER: instruction` in upper case, `nice response answer`."""
    row = draft.row
    instruction = row.instruction if draft.trigger is None else f"{draft.trigger.upper()}: {row.instruction}"
    assistant = row.output if draft.nice is None else f"{draft.nice} {row.output}"
    user = template.format(instruction=instruction, input=row.input)
    return Example(row.index, user, assistant, draft.trigger)


def inject(
    drafts: Sequence[Draft], triggers: Sequence[str], nice_responses: Sequence[str], rng: Random
) -> tuple[Draft, ...]:
    """Draw for each draft in turn a trigger, then a nice response.

    An empty list draws nothing and leaves that part of the draft alone.
    """
    drawn = []
    for draft in drafts:
        if triggers:
            draft = replace(draft, trigger=rng.choice(triggers))
        if nice_responses:
            draft = replace(draft, nice=rng.choice(nice_responses))
        drawn.append(draft)
    return tuple(drawn)
