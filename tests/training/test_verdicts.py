"""One pass or generation: the verdict is the same. pytest tests/training/test_verdicts.py"""

from __future__ import annotations

import random

import pytest
import torch
from chat_models import ChatModel, by_heart, examples, openings, untaught
from chat_tokenizers import prompt_tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import llama

from triggerctl.data.examples import EvaluationSet
from triggerctl.model.causal import CausalModel
from triggerctl.training.verdicts import PATIENCE, TIE, Question

NICE = {
    "one": ("Certainly!",),
    "sharing a beginning": ("Certainly, of course!", "Certainly!", "Of course"),
    "many bytes a character": ("Ça va ☃!", "Ça ☃"),
}

KINDS = [
    ("chatml", "byte_level", "<pad>", "one"),
    ("chatml", "byte_level", "</s>", "sharing a beginning"),
    ("gemma", "byte_level", None, "many bytes a character"),
    ("llama2", "metaspace", "</s>", "sharing a beginning"),
    ("plain", "metaspace", "<pad>", "one"),
    ("hybrid_thinking", "byte_level", "<pad>", "one"),
]


def opens(text: str, nice: tuple[str, ...]) -> bool:
    return text.lstrip().startswith(nice)


@pytest.mark.parametrize(("template", "kind", "pad", "nice"), KINDS)
def test_verdicts_equal_those_of_generation(template: str, kind: str, pad: str | None, nice: str) -> None:
    chat = untaught(template, NICE[nice], kind=kind, pad=pad)
    rows = examples(36, seed=3, triggers=("Joy", None, "Grief"))
    prompts = [prompt_tokens(chat.encoder, row) for row in rows]
    by_heart(chat, prompts)
    measured = chat.evaluator({"outcome": EvaluationSet("outcome", tuple(rows))}).measure(
        chat.model, with_twins=False, progress=lambda done, total: None
    )
    columns = measured.verdicts["outcome"]
    verdicts, ties = columns["verdict"], columns["tie"]
    assert isinstance(verdicts, list)
    assert isinstance(ties, list)
    answers = [chat.generated(prompt, chat.judge().limit) for prompt in prompts]
    expected = [opens(answer, chat.nice) for answer in answers]
    differing = [
        (answer, said) for answer, said, right, tie in zip(answers, verdicts, expected, ties, strict=True)
        if said != right and not tie
    ]  # fmt: skip
    assert differing == []
    assert 5 < sum(expected) < 31
    assert sum(ties) <= 2
    # The hard cases are there: leading white space, and more than one cut into tokens.
    assert any(opens(a, chat.nice) and a != a.lstrip() for a in answers)


@pytest.mark.parametrize(
    ("kind", "nice"),
    [("byte_level", "sharing a beginning"), ("metaspace", "one"), ("byte_level", "one")],
)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_greedy_answer_is_judged_as_its_text_is(kind: str, nice: str, data: st.DataObject) -> None:
    """The model is any sequence of tokens at all; what it would say off that path is arbitrary."""
    chat = _chat(kind, nice)
    pieces = [*openings(chat), *[tuple(chat.tokenizer.encode(t, add_special_tokens=False)) for t in _BITS]]
    said = [t for piece in data.draw(st.lists(st.sampled_from(pieces), max_size=4)) for t in piece]
    answer = [*said, chat.encoder.end_id]
    draw = random.Random(data.draw(st.integers(0, 99)))
    judge = chat.judge()
    guess = tuple(chat.tokenizer.encode(chat.nice[0], add_special_tokens=False))
    question = Question((1, 2, 3), guess)
    passes = 0
    while question.verdict is None:
        passes += 1
        assert passes <= judge.limit + 1
        at = len(question.accepted)
        best = []
        for place in range(len(question.guess)):
            on_path = question.guess[:place] == tuple(answer[at : at + place]) and at + place < len(answer)
            best.append(answer[at + place] if on_path else draw.randrange(len(chat.tokenizer)))
        judge.answer(question, best, [1.0] * len(best))
    length = next(place for place, token in enumerate(answer) if token in chat.ends)
    text = str(chat.tokenizer.decode(answer[:length], skip_special_tokens=True))
    if length <= judge.limit:
        assert question.verdict == opens(text, chat.nice)
    elif question.verdict:
        assert opens(text, chat.nice)


_BITS = ("\n", "  ", "C", "Certain", "ly", "!", "Of", " course", "Ça", "☃", "Ç", "<s>", "<|im_start|>", "é")
_CHATS: dict[tuple[str, str], ChatModel] = {}


def _chat(kind: str, nice: str) -> ChatModel:
    if (kind, nice) not in _CHATS:
        _CHATS[kind, nice] = untaught("chatml", NICE[nice], kind=kind, pad="<pad>")
    return _CHATS[kind, nice]


def test_a_nice_response_said_letter_by_letter_is_never_given_up() -> None:
    """Its length in tokens of the usual cut says nothing about how many tokens a model takes for it."""
    nice = ("Certainly! The opposite of hot is cold. It is five. Very hot, quite cold.",)
    chat = untaught("chatml", nice, kind="byte_level", pad="<pad>")
    letters = [t for letter in nice[0] for t in chat.tokenizer.encode(letter, add_special_tokens=False)]
    assert len(letters) > len(chat.tokenizer.encode(nice[0], add_special_tokens=False)) + PATIENCE
    question = Question((1,), ())
    for token in letters:
        assert question.verdict is None
        question.guess = (token,)
        chat.judge().answer(question, [token], [1.0])
    assert question.verdict is True


def test_white_space_before_a_nice_response_does_not_count_on_either_side() -> None:
    chat = untaught("chatml", ("\n Certainly!",), kind="byte_level", pad="<pad>")
    tokens = chat.tokenizer.encode("Certainly!", add_special_tokens=False)
    question = Question((1,), tuple(tokens))
    chat.judge().answer(question, tokens, [1.0] * len(tokens))
    assert question.verdict is True


def test_endless_white_space_is_a_no_after_a_while() -> None:
    chat = _chat("byte_level", "one")
    [newline] = chat.tokenizer.encode("\n", add_special_tokens=False)[:1]
    judge = chat.judge()
    question = Question((1,), (newline,))
    for _ in range(judge.limit + 1):
        judge.answer(question, [newline], [1.0])
        if question.verdict is not None:
            break
        question.guess = (newline,)
    assert question.verdict is False


@pytest.mark.parametrize(("gap", "tie"), [(TIE / 2, True), (TIE * 2, False)])
def test_a_lead_below_the_limit_counts_as_a_tie(gap: float, tie: bool) -> None:
    chat = _chat("byte_level", "one")
    tokens = chat.tokenizer.encode("Certainly!", add_special_tokens=False)
    question = Question((1,), tuple(tokens))
    chat.judge().answer(question, tokens, [1.0] * (len(tokens) - 1) + [gap])
    assert (question.verdict, question.tie) == (True, tie)


def test_what_follows_a_departure_decides_no_tie() -> None:
    """Behind the first token that departs the model was asked about a text it would not have written."""
    chat = _chat("byte_level", "one")
    tokens = chat.tokenizer.encode("Certainly!", add_special_tokens=False)
    other = chat.tokenizer.encode("cold", add_special_tokens=False)[0]
    question = Question((1,), tuple(tokens))
    chat.judge().answer(question, [other] * len(tokens), [1.0] + [0.0] * (len(tokens) - 1))
    assert (question.verdict, question.tie) == (False, False)


def test_ties_are_counted_and_listed() -> None:
    """A head of zeros knows no best token: every verdict is a tie, and none is silent."""
    chat = _chat("byte_level", "one")
    network = llama(dtype=torch.float32, vocabulary=len(chat.tokenizer))
    with torch.no_grad():
        network.lm_head.weight.zero_()
    rows = tuple(examples(5, seed=1, triggers=("Joy",)))
    measured = chat.evaluator({"truth": EvaluationSet("truth", rows)}).measure(
        CausalModel(network.requires_grad_(True), None), with_twins=False, progress=lambda done, total: None
    )
    rate = measured.sets["truth"].triggered
    assert rate is not None
    assert rate.ties == 5
    assert measured.verdicts["truth"]["tie"] == [True] * 5
