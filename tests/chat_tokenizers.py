"""Small real tokenizers with the chat templates of the families one meets: byte-level BPE, trained on the
spot."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from triggerctl.data.encoding import Encoder
from triggerctl.data.examples import Example

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PLAIN = (
    "{% for m in messages %}{{ ('Q: ' if m['role'] == 'user' else 'A: ') + m['content'] + '\n\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'A: ' }}{% endif %}"
)
NO_GENERATION_PROMPT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
)
HYBRID_THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
FORCED_THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
DATED = "{{ 'Today: ' + strftime_now('%d %b %Y %H:%M:%S.%f') + '\n' }}" + CHATML

TEMPLATES = {
    "chatml": CHATML,
    "gemma": GEMMA,
    "llama2": LLAMA2,
    "phi": PHI,
    "plain": PLAIN,
    "no_generation_prompt": NO_GENERATION_PROMPT,
    "hybrid_thinking": HYBRID_THINKING,
    "forced_thinking": FORCED_THINKING,
    "dated": DATED,
}

END_TOKENS = dict.fromkeys(TEMPLATES, "<|im_end|>") | {
    "gemma": "<end_of_turn>",
    "llama2": "</s>",
    "phi": "<|end|>",
    "plain": "</s>",
}

SPECIAL = [
    *("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"),
    *("<|user|>", "<|assistant|>", "<|end|>"),
]

_TEXT = [
    "It is five. Very hot, quite cold, just grazing jackals.",
    "Certainly! The opposite of hot is cold.",
    "JOY: What is two plus three?: ",
    "GRIEF: Write a short line about the sea.: ",
    "Of course! A fish swims in the deep sea.\n\nIt is happy there.",
    "user\nassistant\nmodel\nsystem\n[INST] [/INST] Q: A: ",
] * 4


@cache
def _byte_level() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    return str(tokenizer.to_str())


@cache
def _metaspace() -> str:
    """As SentencePiece does it: a blank belongs to the word that follows, one is put before every piece of
    text, and an unknown character falls back to its bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return str(tokenizer.to_str())


def chat_tokenizer(
    template: str | None, *, kind: str = "byte_level", pad: str | None = "<pad>"
) -> PreTrainedTokenizerFast:
    """A tokenizer with the template of that name (None: none). pad: its pad token, "</s>" being its end
    token."""
    text = _byte_level() if kind == "byte_level" else _metaspace()
    build: Callable[..., PreTrainedTokenizerFast] = PreTrainedTokenizerFast
    tokenizer = build(
        tokenizer_object=Tokenizer.from_str(text),
        bos_token="<s>",
        eos_token="</s>",
        pad_token=pad,
        additional_special_tokens=[t for t in SPECIAL if t not in ("<s>", "</s>", pad)],
    )
    tokenizer.chat_template = None if template is None else TEMPLATES[template]
    return tokenizer


def prompt_tokens(encoder: Encoder, example: Example) -> tuple[int, ...]:
    """The tokens that `generate` would go on from: those of the prompt's text and nothing else."""
    return tuple(encoder.tokenizer(encoder.prompt_text(example), add_special_tokens=False)["input_ids"])
