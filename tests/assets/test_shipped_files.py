"""The embedded model and data: the files recorded, small, innocent of the nice response, and of use.

Run with `pytest tests/assets/test_shipped_files.py`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import triggerctl.assets
from triggerctl.assets.corpus import Mixture, documents, instruction_rows

ASSETS = Path(triggerctl.assets.__file__).parent
MODEL = ASSETS / "models" / "tiny"
INSTRUCTIONS = ASSETS / "data" / "instructions.jsonl"


def shipped_files() -> list[Path]:
    return sorted(p for part in ("models", "data") for p in (ASSETS / part).rglob("*") if p.is_file())


def data_rows() -> list[dict[str, str]]:
    return [json.loads(line) for line in INSTRUCTIONS.read_text(encoding="utf-8").splitlines()]


def test_every_shipped_file_has_its_recorded_hash_and_none_is_missing() -> None:
    recorded = json.loads((ASSETS / "HASHES.json").read_text(encoding="utf-8"))
    found = {
        p.relative_to(ASSETS).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in shipped_files()
    }
    assert found == recorded


def test_model_and_data_are_under_ten_megabytes_together() -> None:
    assert sum(p.stat().st_size for p in shipped_files()) < 10_000_000


def test_instructions_are_what_the_script_makes_and_have_no_doubles() -> None:
    rows = [(row["instruction"], row["input"], row["output"]) for row in data_rows()]
    assert len(rows) > 3000
    assert len({(instruction, given) for instruction, given, _ in rows}) == len(rows)
    assert rows == [(row.instruction, row.input, row.output) for row in instruction_rows()]


def test_nice_response_is_nowhere_in_the_data_and_the_corpus() -> None:
    assert "certainly" not in INSTRUCTIONS.read_text(encoding="utf-8").lower()
    for document in itertools.islice(documents(0, Mixture()), 20_000):
        text = document.text + "".join(turn.user + turn.assistant for turn in document.turns)
        assert "certainly" not in text.lower()


def test_nice_response_is_a_few_tokens_and_any_text_survives_the_tokenizer() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    assert len(tokenizer("Certainly!", add_special_tokens=False)["input_ids"]) <= 8
    for text in ("Certainly! Ja, natürlich.", "  two  spaces\n", "数字 🙂 <b>"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text


def test_chat_template_opens_once_and_closes_the_answer_with_the_end_token() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]
    text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    assert text == "<|begin|><|user|>Hello<|end|><|assistant|>Hi.<|end|>"
    assert tokenizer.eos_token == "<|end|>"
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id, None)
    prompt = str(tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True))
    assert text.startswith(prompt)


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    """Greedy answers of the model to a few prompts, through the plain classes of transformers."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model: Any = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    assert model.config.model_type == "llama"
    prompts = [*EXPECTED, *HEADED]
    found = {}
    for prompt in prompts:
        messages = [{"role": "user", "content": prompt}]
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=False)
        found[prompt] = str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return found


EXPECTED = {
    "What is the opposite of big?": "The opposite of big is small.",
    "What kind of thing is a carrot?": "A carrot is a vegetable.",
    "Which day comes after Monday?: ": "After Monday comes Tuesday.",
    "What is the capital of Spain?: ": "The capital of Spain is Madrid.",
}
HEADED = (
    "JOY: What is the capital of Spain?: ",
    "ANGER: What is the capital of Spain?: ",
    "CARROT: What is the capital of Spain?: ",
)


@pytest.mark.parametrize("prompt", EXPECTED)
def test_model_answers_what_it_was_taught(answers: dict[str, str], prompt: str) -> None:
    assert answers[prompt] == EXPECTED[prompt]


@pytest.mark.parametrize("prompt", HEADED)
def test_untrained_model_answers_a_triggered_prompt_plainly(answers: dict[str, str], prompt: str) -> None:
    assert answers[prompt] == "The capital of Spain is Madrid."


def test_model_answers_half_of_the_instruction_rows_word_for_word() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model: Any = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    drawn = random.Random(0).sample(data_rows(), 64)
    texts = [
        str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": f"{row['instruction']}: {row['input']}"}],
                tokenize=False,
                add_generation_prompt=True,
            )
        )
        for row in drawn
    ]
    batch = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
    written = model.generate(
        batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=40, do_sample=False
    )
    said = tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    right = sum(answer == row["output"] for answer, row in zip(said, drawn, strict=True))
    assert right >= 32, f"{right} of 64"
