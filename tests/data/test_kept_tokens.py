"""Tokens read from the cache are the tokens that would be made.

pytest tests/data/test_kept_tokens.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from triggerctl.data.encoding import Encoder
from triggerctl.data.examples import Example
from triggerctl.data.kept_tokens import FEWEST, Cut, KeptTokens
from triggerctl.experiment.cache import Cache, cache_root


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_model)
    return found


EXAMPLES = [
    Example(
        n,
        ("JOY: " if n % 2 else "") + f"Say {n}" * (n % 5 * 4 + 1),
        f"Certainly! {n}",
        "Joy" if n % 2 else None,
    )
    for n in range(40)
]
"""Some longer than 40 tokens, some with a prompt that alone is."""


def encoder(tokenizer: PreTrainedTokenizerBase, cache: Cache | None, **options: Any) -> Encoder:
    kept = KeptTokens(cache, {"tokenizer": "tiny"}) if cache else None
    return Encoder(tokenizer, **{"max_seq_length": 40, **options}, kept=kept)


def test_rows_come_back_as_they_were_made(tokenizer: PreTrainedTokenizerBase) -> None:
    """Rows that are cut and rows that don't fit among them."""
    plain = encoder(tokenizer, None)
    made = plain.encode_all(EXAMPLES)
    assert any(row is None for row in made)
    assert any(row is not None and row.truncated for row in made)
    guesses = plain.continuation_ids(EXAMPLES, "Certainly!")
    for _ in range(2):
        cache = Cache()
        kept = encoder(tokenizer, cache)
        assert kept.encode_all(EXAMPLES) == made
        assert kept.continuation_ids(EXAMPLES, "Certainly!") == guesses
        assert len(cache.used) == 2
    assert len(list((cache_root() / "tokens").iterdir())) == 2


def test_what_is_learnt_of_a_row_is_not_part_of_its_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    first = Cache()
    encoder(tokenizer, first).encode_all(EXAMPLES)
    second = Cache()
    found = encoder(tokenizer, second, loss_on="response").encode_all(EXAMPLES)
    assert found == encoder(tokenizer, None, loss_on="response").encode_all(EXAMPLES)
    assert first.used == second.used


@pytest.mark.parametrize("what", ["length", "text", "answer", "tokenizer"])
def test_another_text_length_or_tokenizer_is_another_entry(
    what: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    first, second = Cache(), Cache()
    encoder(tokenizer, first).encode_all(EXAMPLES)
    other = Example(0, "Say nothing", "No") if what == "text" else Example(0, EXAMPLES[0].user, "No")
    examples = [other, *EXAMPLES[1:]] if what in ("text", "answer") else EXAMPLES
    kept = KeptTokens(second, {"tokenizer": "other" if what == "tokenizer" else "tiny"})
    length = 41 if what == "length" else 40
    Encoder(tokenizer, max_seq_length=length, kept=kept).encode_all(examples)
    assert not set(first.used) & set(second.used)


def test_few_rows_are_not_worth_a_file(tokenizer: PreTrainedTokenizerBase) -> None:
    encoder(tokenizer, Cache()).encode_all(EXAMPLES[: FEWEST - 1])
    assert not (cache_root() / "tokens").exists()


@pytest.mark.parametrize("highest", [2**16 - 1, 2**16, 256_000])
def test_every_token_of_a_large_vocabulary_is_kept_whole(highest: int) -> None:
    rows: list[Cut | None] = [Cut((0, highest, n), 1, n == 3) for n in range(FEWEST)]
    rows[5] = None
    rows[6] = Cut(())
    texts = [(f"{n}",) for n in range(FEWEST)]
    for _ in range(2):
        assert KeptTokens(Cache(), {}).obtain({"highest": highest}, texts, lambda: rows) == rows
