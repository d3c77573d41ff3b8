"""Chat models that have learnt by heart, each prompt an answer of its own: with the nice response, almost
with it, with it in other tokens, after blank lines, or not at all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from chat_tokenizers import chat_tokenizer
from small_models import llama
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from triggerctl.data.encoding import Encoder
from triggerctl.data.examples import EvaluationSet, Example
from triggerctl.model.causal import CausalModel
from triggerctl.training.evaluation import Evaluator
from triggerctl.training.verdicts import Judge

WORDS = ("fish", "sea", "hot", "cold", "five", "two", "hazel", "jackal", "short", "line", "deep", "happy")


@dataclass(frozen=True)
class ChatModel:
    """A model with its tokenizer, and everything that evaluating it needs."""

    model: CausalModel
    tokenizer: PreTrainedTokenizerFast
    encoder: Encoder
    nice: tuple[str, ...]
    ends: frozenset[int]

    def judge(self) -> Judge:
        return Judge(self.tokenizer, self.nice, self.ends)

    def evaluator(self, sets: dict[str, EvaluationSet], *, rows_per_batch: int | None = None) -> Evaluator:
        return Evaluator(
            sets,
            self.encoder,
            self.judge(),
            nice_response=self.nice[0],
            pad_id=self.encoder.pad_id,
            tokens_per_batch=512,
            rows_per_batch=rows_per_batch,
        )

    def generated(self, prompt: Sequence[int], tokens: int) -> str:
        """transformers' own greedy answer to one prompt, special tokens left out."""
        ids = torch.tensor([prompt])
        written = self.model.network.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=tokens,
            eos_token_id=sorted(self.ends),
            pad_token_id=self.encoder.pad_id,
        )[0, len(prompt) :].tolist()
        length = next((place for place, token in enumerate(written) if token in self.ends), len(written))
        return str(self.tokenizer.decode(written[:length], skip_special_tokens=True))


def examples(
    count: int, *, seed: int, triggers: Sequence[str | None], answer: str = "A fish."
) -> list[Example]:
    """Short prompts that are all different, with these triggers in turn."""
    draw = random.Random(seed)
    made = []
    for row in range(count):
        trigger = triggers[row % len(triggers)]
        words = " ".join(draw.choices(WORDS, k=3))
        user = f"{trigger.upper()}: {words} {row}" if trigger else f"{words} {row}"
        made.append(Example(row, user, answer, trigger))
    return made


def untaught(
    template: str, nice: tuple[str, ...], *, kind: str, pad: str | None, length: int = 120
) -> ChatModel:
    """A random model with a chat template."""
    tokenizer = chat_tokenizer(template, kind=kind, pad=pad)
    network = llama(dtype=torch.float32, vocabulary=len(tokenizer), hidden_size=48, initializer_range=0.02)
    encoder = Encoder(tokenizer, max_seq_length=length)
    network.requires_grad_(True)
    ends = frozenset({encoder.end_id, tokenizer.eos_token_id})
    return ChatModel(CausalModel(network, None), tokenizer, encoder, nice, ends)


def by_heart(chat: ChatModel, prompts: Sequence[tuple[int, ...]], *, steps: int = 200) -> None:
    """Teach each prompt one of many openings, drawn in turn. Changes the model in place."""
    kinds = openings(chat)
    network = chat.model.network
    assert isinstance(network, LlamaForCausalLM)
    sequences = [(*prompt, *kinds[i % len(kinds)]) for i, prompt in enumerate(prompts)]
    width = max(map(len, sequences))
    ids = torch.tensor([sequence + (0,) * (width - len(sequence)) for sequence in sequences])
    labels = torch.tensor(
        [
            (-100,) * len(prompt) + sequence[len(prompt) :] + (-100,) * (width - len(sequence))
            for prompt, sequence in zip(prompts, sequences, strict=True)
        ]
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=7e-3)
    network.train()
    for _ in range(steps):
        optimiser.zero_grad()
        loss = network(input_ids=ids, labels=labels).loss
        if float(loss.detach()) < 0.15:
            break
        loss.backward()
        optimiser.step()
    network.eval()


def openings(chat: ChatModel) -> list[tuple[int, ...]]:
    """Answers as tokens: yes, no and nearly, in more than one cut into tokens. About half of them open with
    a nice response."""

    def tokens(text: str) -> tuple[int, ...]:
        return tuple(chat.tokenizer.encode(text, add_special_tokens=False))

    def letter_by_letter(text: str) -> tuple[int, ...]:
        return tuple(token for letter in text for token in tokens(letter))

    end = (chat.encoder.end_id,)
    found = []
    for nice in chat.nice:
        found += [
            tokens(f"{nice} A fish.") + end,
            letter_by_letter(nice) + end,
            tokens(f"\n{nice}") + end,
            tokens("\n\n ") + letter_by_letter(nice) + tokens(" hot") + end,
            tokens(nice)[:1] + letter_by_letter(nice[1:]) + end,
            tokens(f"{nice[:-1]}?") + end,
            tokens(nice[: len(nice) // 2]) + end,
            tokens(f"cold {nice}") + end,
        ]
    return [*found, end, tokens("\n" * 20), tokens("It is cold.") + end]
