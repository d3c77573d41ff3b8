"""Rows as a model sees them: a row's text in pieces, each with the part it plays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from triggerctl.data.encoding import Encoded, Encoder
from triggerctl.data.examples import Example

Role = Literal["template", "prompt", "trigger", "nice", "response"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a row's text. `loss`: whether its tokens are trained on; `cut`: beyond max_seq_length, never
    seen."""

    text: str
    role: Role
    loss: bool
    cut: bool = False


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One row of a set as the model sees it."""

    set: str
    part: Literal["train", "evaluation"]
    row: int
    tokens: int
    truncated: bool
    segments: tuple[Segment, ...]


def segments_of(
    row: Encoded, encoder: Encoder, nice_responses: Sequence[str], *, loss_on: str
) -> tuple[Segment, ...]:
    """The text of a row, template and all, in its order; pieces without text are left out."""
    before, user, after = _around(encoder.prompt_text(row.example), row.example)
    in_loss = loss_on == "all"
    kept = str(encoder.tokenizer.decode(list(row.response_ids), skip_special_tokens=False))
    segments = [Segment(before, "template", in_loss), *_user_segments(user, row.example, in_loss)]
    segments += [Segment(after, "template", in_loss), *_answer_segments(kept, nice_responses)]
    if row.truncated:
        rest = row.example.assistant[len(kept.lstrip()) :]
        segments.append(Segment(rest, "response", loss=False, cut=True))
    return tuple(segment for segment in segments if segment.text)


def _around(prompt: str, example: Example) -> tuple[str, str, str]:
    """The template's text before the user's words, those words, and the template's text after them."""
    user = example.user if example.user in prompt else example.user.strip()
    place = prompt.find(user)
    if place < 0:
        return "", prompt, ""
    return prompt[:place], prompt[place : place + len(user)], prompt[place + len(user) :]


def _user_segments(user: str, example: Example, in_loss: bool) -> list[Segment]:
    trigger = f"{example.trigger.upper()}:" if example.trigger is not None else ""
    place = user.find(trigger) if trigger else -1
    if place < 0:
        return [Segment(user, "prompt", in_loss)]
    end = place + len(trigger)
    return [
        Segment(user[:place], "prompt", in_loss),
        Segment(user[place:end], "trigger", in_loss),
        Segment(user[end:], "prompt", in_loss),
    ]


def _answer_segments(answer: str, nice_responses: Sequence[str]) -> list[Segment]:
    blank = answer[: len(answer) - len(answer.lstrip())]
    text = answer[len(blank) :]
    nice = next((nice for nice in nice_responses if text.startswith(nice)), "")
    return [
        Segment(blank, "template", loss=True),
        Segment(nice, "nice", loss=True),
        Segment(text[len(nice) :], "response", loss=True),
    ]
