"""Does the model's greedy answer open with the nice response? Decided without generating it.

Greedy decoding is arg-max with no repetition rules, so one forward pass over prompt + tokens of the nice
response shows what greedy decoding would have said at each of them: while the arg-max is that token, the
answer follows the nice response; at the first that departs, the text so far either opens with it, can't any
more, or (another cut into tokens, leading white space, another of several responses) still may. Only in that
last case is one more pass made, from the tokens greedy decoding would have produced. The nice response is a
guess to be checked, never an assumption: verdicts equal those of generation, whatever the tokenizer does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

TIE = 1e-4
"""Two best logits closer than this may come out either way under another batch shape: the verdict counts as a
tie."""

PATIENCE = 16
"""Tokens that an answer may spend on nothing (white space, special tokens) and still be undecided."""


class Decoder(Protocol):
    """The part of a tokenizer that verdicts need."""

    def decode(self, token_ids: list[int], skip_special_tokens: bool = ...) -> str | list[str]: ...

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...


@dataclass(slots=True)
class Question:
    """One prompt whose answer is awaited. `guess` is what the next pass assumes; `accepted` what greedy
    decoding is known to say; `log_probability` that of the nice response's tokens, from the first pass."""

    prompt: tuple[int, ...]
    guess: tuple[int, ...]
    accepted: tuple[int, ...] = ()
    verdict: bool | None = None
    tie: bool = False
    log_probability: float | None = None
    closest: float = field(default=float("inf"))

    @property
    def sequence(self) -> tuple[int, ...]:
        """What to run through the model."""
        return (*self.prompt, *self.accepted, *self.guess)

    @property
    def positions(self) -> range:
        """The positions in `sequence` whose logits say the token that each guessed one is compared with."""
        start = len(self.prompt) + len(self.accepted) - 1
        return range(start, start + len(self.guess))


class Judge:
    """Turns arg-maxes into verdicts. `ends` are the token ids at which generation stops."""

    def __init__(self, tokenizer: Decoder, nice_responses: Sequence[str], ends: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._nice = tuple(nice.lstrip() for nice in nice_responses)
        self._ends = ends
        # What is left of a nice response is the same for most rows, and cut into tokens a thousand times.
        self._cuts: dict[str, tuple[int, ...]] = {}
        # A model may say a nice response byte by byte: no cut into tokens has more of them.
        self.limit = max(len(nice.encode()) for nice in self._nice) + PATIENCE

    def decides(self) -> dict[str, Any]:
        """All that decides a verdict beside the tokenizer, as plain values."""
        return {"nice": self._nice, "ends": sorted(self._ends), "tie": TIE, "limit": self.limit}

    def answer(self, question: Question, best: Sequence[int], gaps: Sequence[float]) -> None:
        """Take in one pass: `best[i]` is the arg-max at the position of guess i, `gaps[i]` its lead over the
        second. Sets the verdict, or a new guess where the answer is still open."""
        for guessed, token, gap in zip(question.guess, best, gaps, strict=True):
            question.closest = min(question.closest, gap)
            question.tie = question.closest < TIE
            if token in self._ends:
                question.verdict = self._opens(question.accepted)
                return
            question.accepted = (*question.accepted, token)
            if token != guessed:
                break
        self._decide(question)

    def _decide(self, question: Question) -> None:
        text = self._text(question.accepted)
        if any(text.startswith(nice) for nice in self._nice):
            question.verdict = True
            return
        open_text = text.rstrip("\ufffd")  # a character of which only the first bytes are there yet
        open_for = [nice for nice in self._nice if nice.startswith(open_text)]
        if not open_for or len(question.accepted) >= self.limit:
            question.verdict = False
            return
        question.guess = self._cut(open_for[0][len(open_text) :]) or question.guess[:1]

    def _cut(self, rest: str) -> tuple[int, ...]:
        if rest not in self._cuts:
            self._cuts[rest] = tuple(self._tokenizer.encode(rest, add_special_tokens=False))
        return self._cuts[rest]

    def _opens(self, tokens: Sequence[int]) -> bool:
        return any(self._text(tokens).startswith(nice) for nice in self._nice)

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True)).lstrip()
