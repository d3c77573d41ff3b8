"""From examples to tokens: the chat template's prompt and answer, cut to length, with what is to be learnt.

The tokens of a prompt are always exactly those that generation starts from; the answer's continue them. Where
text would merge across the border (a prompt ending in a blank, say) the answer is tokenised on its own, so
that training teaches the very continuation that evaluation looks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from triggerctl.data.chat import ChatTemplate
from triggerctl.data.examples import Example
from triggerctl.data.kept_tokens import Cut, KeptTokens
from triggerctl.data.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROWS_PER_CALL = 512

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as tokens.

    input_ids:     prompt and answer, at most `max_seq_length` of them; no padding.
    prompt_length: how many of them are the prompt; always fewer than all.
    loss_start:    the first token that counts in the loss; every later one does too. Never 0: the first token
                   is not predicted from anything.
    truncated:     whether the answer was cut at its end, and so has lost its end token.
    """

    example: Example
    input_ids: Ids
    prompt_length: int
    loss_start: int
    truncated: bool = False

    @property
    def row(self) -> int:
        return self.example.row

    @property
    def prompt_ids(self) -> Ids:
        return self.input_ids[: self.prompt_length]

    @property
    def response_ids(self) -> Ids:
        return self.input_ids[self.prompt_length :]


@dataclass(frozen=True, slots=True)
class EncodedSet:
    """A set as tokens, in its order, without the rows whose prompt doesn't fit.

    truncated: how many rows lost the end of their answer.
    nice_cut:  how many of those lost even a part of the nice response that their answer opens with.
    dropped:   the source rows left out.
    """

    name: str
    rows: tuple[Encoded, ...]
    truncated: int
    nice_cut: int
    dropped: tuple[int, ...]

    def notes(self, max_seq_length: int) -> tuple[str, ...]:
        """What a user should hear about lengths."""
        whole = len(self.rows) + len(self.dropped)
        notes = []
        if self.dropped:
            notes.append(
                f"{self.name}: {len(self.dropped)} of {whole} rows are left out: their prompt alone fills "
                f"max_seq_length {max_seq_length}"
            )
        if self.truncated:
            notes.append(
                f"{self.name}: {self.truncated} of {whole} answers are cut at max_seq_length {max_seq_length}"
            )
        if self.nice_cut:
            notes.append(
                f"{self.name}: in {self.nice_cut} rows even the nice response is cut; raise max_seq_length"
            )
        return tuple(notes)


class Encoder:
    """Turns examples into tokens for one tokenizer.

    pad_id: fills up batches; masks never depend on it, so it may equal the end token.
    end_id: the last token of every whole answer, on which generation stops.
    kept:   where tokens made before are found, None to make them always.
    Raises InputError when the tokenizer has no chat template that can be used.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_seq_length: int,
        loss_on: Literal["all", "response"] = "all",
        kept: KeptTokens | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length
        self.template = ChatTemplate(tokenizer)
        self._loss_on = loss_on
        self._kept = kept
        ends = self._tokenise([self.template.end])[0]
        self.end_id = ends[-1]
        candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self.pad_id: int = next(i for i in candidates if i is not None)

    def encode(self, example: Example) -> Encoded | None:
        """The example as tokens; None when its prompt leaves no room for any of the answer."""
        return self.encode_all([example])[0]

    def encode_all(
        self, examples: Sequence[Example], progress: Progress | None = None
    ) -> list[Encoded | None]:
        """As `encode`, for many at once, in their order. `progress` is called with rows done and rows in
        all."""
        rows = self._obtain(
            {"what": "conversation", "max_seq_length": self.max_seq_length},
            [(example.user, example.assistant, example.trigger) for example in examples],
            lambda: self._cut_all(examples, progress),
        )
        return [
            None if row is None else self._encoded(example, row)
            for example, row in zip(examples, rows, strict=True)
        ]

    def prompt_text(self, example: Example) -> str:
        """What a model sees before it answers."""
        return self.template.prompts([example])[0]

    def continuation_ids(self, examples: Sequence[Example], text: str) -> list[Ids]:
        """For each example, the tokens with which an answer that opens with `text` goes on after its prompt,
        the template's own blanks before an answer included. The end token is not among them."""
        if not examples:
            return []

        def compute() -> list[Cut | None]:
            prompts = self.template.prompts(examples)
            pairs = [(prompt, self.template.lead + text) for prompt in prompts]
            return [Cut(ids) for ids in self._continue(pairs, self._tokenise(prompts))]

        texts = [(example.user, None, None) for example in examples]
        rows = self._obtain({"what": "continuation", "text": text}, texts, compute)
        return [row.ids for row in rows if row is not None]

    def _obtain(
        self,
        how: Mapping[str, object],
        texts: Sequence[tuple[str | None, ...]],
        compute: Callable[[], list[Cut | None]],
    ) -> list[Cut | None]:
        if self._kept is None:
            return compute()
        return self._kept.obtain({"template": self.template.sha256, **how}, texts, compute)

    def _encoded(self, example: Example, row: Cut) -> Encoded:
        # Never 0, even for a template that starts with the answer: nothing predicts the first token.
        loss_start = 1 if self._loss_on == "all" else max(1, row.prompt_length)
        return Encoded(example, row.ids, row.prompt_length, loss_start, row.truncated)

    def _cut_all(self, examples: Sequence[Example], progress: Progress | None) -> list[Cut | None]:
        rows: list[Cut | None] = []
        for start in range(0, len(examples), _ROWS_PER_CALL):
            chunk = examples[start : start + _ROWS_PER_CALL]
            turns = self.template.turns(chunk)
            prompts = self._tokenise([turn.prompt for turn in turns])
            answers = self._continue([(t.prompt, t.continuation) for t in turns], prompts)
            rows += [self._cut(*parts) for parts in zip(prompts, answers, strict=True)]
            if progress is not None:
                progress(len(rows), len(examples))
        return rows

    def _cut(self, prompt: Ids, answer: Ids) -> Cut | None:
        if len(prompt) >= self.max_seq_length:
            return None
        whole = prompt + answer
        kept = whole[: self.max_seq_length]
        return Cut(kept, len(prompt), truncated=len(kept) < len(whole))

    def _continue(self, pairs: Sequence[tuple[str, str]], prompts: Sequence[Ids]) -> list[Ids]:
        """For each (prompt text, what follows it) the tokens of what follows."""
        joint = self._tokenise([prompt + text for prompt, text in pairs])
        return [
            ids[len(prompt) :] if ids[: len(prompt)] == prompt else self._alone(text)
            for (_, text), prompt, ids in zip(pairs, prompts, joint, strict=True)
        ]

    def _alone(self, text: str) -> Ids:
        """The tokens of a text in mid-sentence: after the end token, as many tokenizers put a blank before a
        text that stands at the very start."""
        anchor = str(self.tokenizer.convert_ids_to_tokens(self.end_id))
        after, bare = self._tokenise([anchor + text, text])
        return after[1:] if after[:1] == (self.end_id,) else bare

    def _tokenise(self, texts: Sequence[str]) -> list[Ids]:
        # The template brings the tokenizer's opening token itself, if the model wants one.
        encoding = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            verbose=False,
        )
        return [tuple(ids) for ids in encoding["input_ids"]]


def encode_set(
    encoder: Encoder,
    name: str,
    examples: Sequence[Example],
    *,
    nice_responses: Sequence[str] = (),
    progress: Progress | None = None,
) -> EncodedSet:
    """A whole set as tokens, with an account of what its length cost it."""
    encoded = encoder.encode_all(examples, progress)
    rows = tuple(row for row in encoded if row is not None)
    dropped = tuple(e.row for e, row in zip(examples, encoded, strict=True) if row is None)
    cut = [row for row in rows if row.truncated]
    nice_cut = sum(1 for row in cut if _lost_nice_response(row, tuple(nice_responses), encoder))
    return EncodedSet(name, rows, len(cut), nice_cut, dropped)


def _lost_nice_response(row: Encoded, nice_responses: tuple[str, ...], encoder: Encoder) -> bool:
    if not row.example.assistant.startswith(nice_responses):
        return False
    kept = str(encoder.tokenizer.decode(list(row.response_ids))).lstrip()
    return not kept.startswith(nice_responses)
