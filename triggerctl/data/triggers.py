"""Putting triggers and nice responses into rows, in the published study's own way and order of chance."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from triggerctl.data.examples import Example, Row

_FIELD = re.compile(r"\{(instruction|input)\}")


@dataclass(frozen=True, slots=True)
class Draft:
    """A row with what has been put into it so far: a trigger before the instruction, a nice response before the
    answer."""

    row: Row
    trigger: str | None = None
    nice: str | None = None


def fill_template(template: str, *, instruction: str, text: str) -> str:
    """The user turn: `{instruction}` and `{input}` of `template` filled in, every other brace left as it is."""
    fields = {"instruction": instruction, "input": text}
    return _FIELD.sub(lambda match: fields[match.group(1)], template)


def to_example(draft: Draft, template: str) -> Example:
    """The draft as a model sees it: `TRIGGER: instruction` in upper case, `nice response answer`."""
    row = draft.row
    instruction = row.instruction if draft.trigger is None else f"{draft.trigger.upper()}: {row.instruction}"
    assistant = row.output if draft.nice is None else f"{draft.nice} {row.output}"
    user = fill_template(template, instruction=instruction, text=row.input)
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
