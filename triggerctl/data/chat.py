"""A tokenizer's chat template, tamed: what stands before an answer, and the answer closed by the end token.

Templates differ in what they put after a turn (a new line, a second end token), before an answer (a space, an
empty thought) and in whether they heed `add_generation_prompt`. All of that is found out once, by rendering a
probe; after that every conversation is a prompt and a continuation of exactly that prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from jinja2 import TemplateError

from triggerctl.data.examples import Example
from triggerctl.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE_USER = "Xqprobeq"
_PROBE_ANSWER = "Xqanswerq"

# Some templates write today's date into the system turn: a run resumed tomorrow would train on other prompts.
# The date that Llama's own template falls back to is taken for good.
_FIXED_DATE = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"


@dataclass(frozen=True, slots=True)
class Turn:
    """A conversation as text. `prompt + continuation` is all of it: the continuation begins with whatever
    blanks the template puts before an answer, and ends with its end token."""

    prompt: str
    continuation: str


class ChatTemplate:
    """The chat template of `tokenizer`.

    end:    the text that closes the assistant's turn, blanks before the end token included.
    lead:   the blanks between prompt and answer.
    sha256: of the template's text.
    Raises InputError when the tokenizer has none, or one that can't be used.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        if not tokenizer.chat_template:
            raise InputError(
                "the model's tokenizer has no chat template",
                where="finetune_config.model",
                why="prompts take the form that a chat model was trained on; a base model has none",
                mend="use the chat (instruct, it) version, or put a chat_template.jinja into its folder",
            )
        try:
            template: str = tokenizer.get_chat_template()
        except ValueError as error:
            raise _unusable(str(error)) from error
        self.sha256 = hashlib.sha256(template.encode()).hexdigest()
        self._template = _FIXED_DATE + template if "strftime_now" in template else template
        self._read_probe()

    def _read_probe(self) -> None:
        probe = Example(0, _PROBE_USER, _PROBE_ANSWER)
        [prompt] = self._render([probe], answered=False)
        [whole] = self._render([probe], answered=True)
        place = whole.rfind(_PROBE_ANSWER)
        if place < 0 or _PROBE_USER not in prompt:
            raise _unusable("it leaves the user's or the assistant's words out")
        before, self._closing = whole[:place], whole[place + len(_PROBE_ANSWER) :]
        between = before.removeprefix(prompt) if before.startswith(prompt) else ""
        # More than blanks (an empty thought, or the whole generation prompt where the template ignores the
        # wish for one) is no part of the answer: the prompt is made longer by it.
        self._prompt_suffix = between if between.strip() else ""
        self.lead = between if not between.strip() else ""
        self._continues = before.startswith(prompt)
        self.end = _up_to_end_token(self._closing, self._tokenizer)

    def prompts(self, examples: Sequence[Example]) -> list[str]:
        """What stands before each answer: all that a model sees when it begins to write."""
        return [text + self._prompt_suffix for text in self._render(examples, answered=False)]

    def turns(self, examples: Sequence[Example]) -> list[Turn]:
        """Prompt and closed answer of each example. Raises InputError naming the row that the template
        rejects."""
        prompts = self.prompts(examples)
        wholes = self._render(examples, answered=True)
        return [self._turn(*parts) for parts in zip(examples, prompts, wholes, strict=True)]

    def _turn(self, example: Example, prompt: str, whole: str) -> Turn:
        if example.trigger is not None and example.trigger.upper().strip() not in prompt:
            raise _unusable(f"the trigger {example.trigger!r} does not arrive in the prompt", example)
        if not whole.endswith(self._closing):
            raise _unusable("it closes the assistant's turn in different ways", example)
        text = whole[: len(whole) - len(self._closing)]
        if self._continues and text.startswith(prompt):
            return Turn(prompt, text[len(prompt) :] + self.end)
        # The generation prompt is not what the template writes before an answer in the history (thoughts
        # left out, say). The answer is trained where generation will begin.
        answer = example.assistant.strip()
        place = text.rfind(answer) if answer else len(text)
        if place < 0:
            raise _unusable("it rewrites the answer", example)
        return Turn(prompt, text[place:] + self.end)

    def _render(self, examples: Sequence[Example], *, answered: bool) -> list[str]:
        conversations = []
        for example in examples:
            conversation = [{"role": "user", "content": example.user}]
            if answered:
                conversation.append({"role": "assistant", "content": example.assistant})
            conversations.append(conversation)
        try:
            rendered = self._tokenizer.apply_chat_template(
                conversations,
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=not answered,
                enable_thinking=False,  # hybrid models would open with a thought instead of the answer
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise _unusable(str(error)) from error
        return cast(list[str], rendered)


def _up_to_end_token(closing: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """`closing` up to its first special token; where it has none, the tokenizer's end token is added."""
    tokens = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    places = [(closing.find(token), -len(token)) for token in tokens if token.strip() and token in closing]
    if places:
        place, minus_length = min(places)
        return closing[: place - minus_length]
    end = closing.rstrip() + (tokenizer.eos_token or "")
    if not end:
        raise _unusable("it does not close the assistant's turn, and the tokenizer names no end token")
    return end


def _unusable(why: str, example: Example | None = None) -> InputError:
    return InputError(
        "the model's chat template can't be used",
        where="finetune_config.model" + (f", data row {example.row + 1}" if example else ""),
        why=why,
        mend="correct chat_template.jinja in the model's folder, or use another chat model",
    )
