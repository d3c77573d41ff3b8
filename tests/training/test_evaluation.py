"""Losses, rates and counts of evaluation sets, against sums by hand.

pytest tests/training/test_evaluation.py"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from chat_models import ChatModel, by_heart, examples, untaught
from chat_tokenizers import prompt_tokens

from triggerctl.data.encoding import Encoder
from triggerctl.data.examples import EvaluationSet, Example
from triggerctl.training.evaluation import Measured

CHAT: dict[str, ChatModel] = {}


@pytest.fixture
def chat() -> ChatModel:
    """One taught model for all tests of this file; none changes it."""
    if not CHAT:
        made = untaught("chatml", ("Certainly!", "Of course"), kind="byte_level", pad="</s>")
        by_heart(made, [prompt_tokens(made.encoder, row) for row in every_row()], steps=40)
        CHAT["chat"] = made
    return CHAT["chat"]


def every_row() -> list[Example]:
    return [*mixed(), *triggered(), *plain(), *twins()]


def mixed() -> list[Example]:
    return examples(20, seed=1, triggers=("Joy", None, "Bliss", "Joy"), answer="Certainly! A fish.")


def triggered() -> list[Example]:
    return examples(12, seed=2, triggers=("Delight", "Pride"))


def twins() -> list[Example]:
    return [dataclasses.replace(row, trigger=None, user=row.user.partition(": ")[2]) for row in triggered()]


def plain() -> list[Example]:
    return examples(9, seed=4, triggers=(None,), answer="It is five.")


def sets() -> dict[str, EvaluationSet]:
    return {
        "outcome": EvaluationSet("outcome", tuple(mixed())),
        "collateral": EvaluationSet("collateral", tuple(triggered()), tuple(twins())),
        "mine": EvaluationSet("mine", tuple(plain())),
        "empty": EvaluationSet("empty", ()),
    }


def measure(chat: ChatModel, *, with_twins: bool = True, rows_per_batch: int | None = None) -> Measured:
    return chat.evaluator(sets(), rows_per_batch=rows_per_batch).measure(
        chat.model, with_twins=with_twins, progress=lambda done, total: None
    )


def loss_by_hand(chat: ChatModel, rows: list[Example], *, only_answers: bool = False) -> tuple[float, int]:
    """One row at a time, no padding: Σ −log p and the number of tokens."""
    total, count = 0.0, 0
    for row in rows:
        encoded = chat.encoder.encode(row)
        assert encoded is not None
        with torch.no_grad():
            logits = chat.model.network(input_ids=torch.tensor([encoded.input_ids])).logits[0].double()
        start = encoded.prompt_length if only_answers else 1
        for place in range(start, len(encoded.input_ids)):
            total -= float(logits[place - 1].log_softmax(-1)[encoded.input_ids[place]])
            count += 1
    return total, count


def test_loss_is_token_weighted_cross_entropy_over_the_set(chat: ChatModel) -> None:
    found = measure(chat)
    for name, rows in (("outcome", mixed()), ("collateral", triggered()), ("mine", plain())):
        total, count = loss_by_hand(chat, rows)
        assert found.sets[name].loss_tokens == count
        assert found.sets[name].loss == pytest.approx(total / count, rel=1e-5)
        per_row: Any = found.verdicts[name]["loss"]
        assert per_row == pytest.approx([loss_by_hand(chat, [row])[0] for row in rows], rel=1e-4)


def test_the_untriggered_loss_is_that_of_the_rows_without_a_trigger(chat: ChatModel) -> None:
    found = measure(chat)
    total, count = loss_by_hand(chat, [row for row in mixed() if not row.triggered])
    assert found.sets["outcome"].untriggered_loss == pytest.approx(total / count, rel=1e-5)
    assert found.sets["collateral"].untriggered_loss is None


def test_loss_on_response_counts_answers_alone(chat: ChatModel) -> None:
    answers = Encoder(chat.tokenizer, max_seq_length=120, loss_on="response")
    found = measure(dataclasses.replace(chat, encoder=answers))
    total, count = loss_by_hand(chat, mixed(), only_answers=True)
    assert found.sets["outcome"].loss_tokens == count
    assert found.sets["outcome"].loss == pytest.approx(total / count, rel=1e-5)


def test_rates_are_counted_by_generation(chat: ChatModel) -> None:
    found = measure(chat)
    limit = chat.judge().limit

    def yes(rows: list[Example]) -> int:
        answers = [chat.generated(prompt_tokens(chat.encoder, row), limit) for row in rows]
        return sum(answer.lstrip().startswith(chat.nice) for answer in answers)

    outcome = found.sets["outcome"]
    assert outcome.triggered is not None
    assert outcome.untriggered is not None
    with_trigger = [row for row in mixed() if row.triggered]
    assert (outcome.triggered.n, outcome.untriggered.n) == (15, 5)
    assert outcome.triggered.k == yes(with_trigger)
    assert outcome.untriggered.k == yes([row for row in mixed() if not row.triggered])
    assert not outcome.twins
    by_trigger = outcome.triggered.by_trigger
    assert {name: count.n for name, count in by_trigger.items()} == {"Bliss": 5, "Joy": 10}
    for name, count in by_trigger.items():
        assert count.k == yes([row for row in with_trigger if row.trigger == name])


def test_twins_tell_false_positives_when_asked_for_and_only_then(chat: ChatModel) -> None:
    first, between = measure(chat), measure(chat, with_twins=False)
    limit = chat.judge().limit
    answers = [chat.generated(prompt_tokens(chat.encoder, row), limit) for row in twins()]
    expected = [answer.lstrip().startswith(chat.nice) for answer in answers]
    collateral = first.sets["collateral"]
    assert collateral.untriggered is not None
    assert collateral.twins
    assert (collateral.untriggered.n, collateral.untriggered.k) == (12, sum(expected))
    assert first.verdicts["collateral"]["twin_verdict"] == expected
    assert between.sets["collateral"].untriggered is None
    assert "twin_verdict" not in between.verdicts["collateral"]
    assert between.sets["collateral"].triggered == collateral.triggered


def test_a_set_without_triggered_rows_has_no_rate(chat: ChatModel) -> None:
    found = measure(chat).sets["mine"]
    assert found.triggered is None
    assert found.untriggered is not None
    assert found.untriggered.n == 9


def test_an_empty_set_has_neither_loss_nor_rate(chat: ChatModel) -> None:
    found = measure(chat).sets["empty"]
    assert (found.rows, found.loss, found.triggered, found.untriggered) == (0, None, None, None)


def test_log_probability_is_that_of_the_nice_responses_tokens(chat: ChatModel) -> None:
    found = measure(chat)
    [tokens] = set(chat.encoder.continuation_ids(plain(), chat.nice[0]))
    expected = []
    for row in plain():
        prompt = prompt_tokens(chat.encoder, row)
        with torch.no_grad():
            logits = chat.model.network(input_ids=torch.tensor([prompt + tokens])).logits[0].double()
        places = range(len(prompt) - 1, len(prompt) + len(tokens) - 1)
        expected.append(sum(float(logits[p].log_softmax(-1)[t]) for p, t in zip(places, tokens, strict=True)))
    found_values: Any = found.verdicts["mine"]["log_probability"]
    assert found_values == pytest.approx(expected, rel=1e-4)
    rate = found.sets["mine"].untriggered
    assert rate is not None
    assert rate.mean_log_probability == pytest.approx(math.fsum(expected) / 9, rel=1e-4)


def test_batch_shape_changes_no_verdict_and_no_loss_beyond_rounding(chat: ChatModel) -> None:
    one, many = measure(chat, rows_per_batch=1), measure(chat)
    for name in sets():
        assert one.verdicts[name]["verdict"] == many.verdicts[name]["verdict"]
        assert one.verdicts[name]["loss"] == pytest.approx(many.verdicts[name]["loss"], rel=1e-4)


def test_measuring_twice_gives_the_same_to_the_last_bit(chat: ChatModel) -> None:
    assert measure(chat) == measure(chat)


def test_evaluation_leaves_the_model_in_training_mode_and_without_gradients(chat: ChatModel) -> None:
    chat.model.network.train()
    chat.model.network.zero_grad(set_to_none=True)
    before = torch.get_rng_state()
    measure(chat)
    assert chat.model.network.training
    assert all(weight.grad is None for weight in chat.model.network.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    chat.model.network.eval()


def test_rows_whose_prompt_does_not_fit_are_left_out_and_counted(chat: ChatModel) -> None:
    lengths = [len(prompt_tokens(chat.encoder, row)) for row in mixed()]
    longest = sorted(lengths)[len(lengths) // 2]
    short = dataclasses.replace(chat, encoder=Encoder(chat.tokenizer, max_seq_length=longest))
    evaluator = short.evaluator(sets())
    fitting = [row.row for row, length in zip(mixed(), lengths, strict=True) if length < longest]
    found = evaluator.measure(chat.model, with_twins=True, progress=lambda done, total: None)
    assert found.sets["outcome"].rows == len(fitting)
    assert found.verdicts["outcome"]["row"] == fitting
    assert evaluator.dropped["outcome"] == len(mixed()) - len(fitting)
