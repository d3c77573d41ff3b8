"""What a plan amounts to, for `validate`: rows, tokens, updates, memory and time, and what a row looks like.
Loads the tokenizer and the model's configuration, not its weights."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase

from triggerctl.data.encoding import Encoded, Encoder
from triggerctl.data.examples import Example
from triggerctl.experiment.results import SetData
from triggerctl.model.adapters import adapter_size
from triggerctl.model.device import default_threads, matmul_rate, resolve_device, resolve_dtype
from triggerctl.model.load import empty_model, load_tokenizer, locate
from triggerctl.model.memory import ModelShape, available_bytes, peak_bytes
from triggerctl.model.quantise import probe
from triggerctl.model.threads import FORWARD
from triggerctl.training.plan import RunPlan
from triggerctl.training.plane_files import check_plane
from triggerctl.training.setup import Lengths, check_streams, model_shape, set_data
from triggerctl.training.speed import operations_per_token
from triggerctl.training.streams import make_stream, phase_updates, units_per_update

UTILISATION = 0.4
"""Share of the measured matmul rate that training usually reaches."""

START_UP_SECONDS = 12.0
"""Imports, loading, figures: what even the smallest run spends beside its floor."""

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


@dataclass(frozen=True, slots=True)
class Description:
    """`updates` are of all phases; tokens are attended ones over the whole run; `memory_bytes`,
    `available_bytes` and `seconds` are estimates; `matmul_flops` was measured."""

    sets: dict[str, SetData]
    updates: int
    rows_per_update: int
    trained_tokens: int
    evaluated_tokens: int
    parameters: int
    trainable: int
    device: str
    dtype: str
    memory_bytes: int
    available_bytes: int
    matmul_flops: float
    seconds: float
    warnings: tuple[str, ...]
    rows: tuple[tuple[str, Encoded], ...]
    encoder: Encoder
    nice_responses: tuple[str, ...]
    loss_on: str

    def preview(self, count: int) -> tuple[PreviewRow, ...]:
        """The first `count` rows of each set: those trained on, or those evaluated where a set is not trained
        on."""
        shown: dict[str, int] = {}
        found = []
        for name, row in self.rows:
            shown[name] = shown.get(name, 0) + 1
            if shown[name] <= count:
                found.append(self._preview(name, row))
        return tuple(found)

    def _preview(self, name: str, row: Encoded) -> PreviewRow:
        prompt = self.encoder.prompt_text(row.example)
        before, user, after = _around(prompt, row.example)
        in_loss = self.loss_on == "all"
        kept = str(self.encoder.tokenizer.decode(list(row.response_ids), skip_special_tokens=False))
        segments = [Segment(before, "template", in_loss), *_user_segments(user, row.example, in_loss)]
        segments += [Segment(after, "template", in_loss), *_answer_segments(kept, self.nice_responses)]
        if row.truncated:
            rest = row.example.assistant[len(kept.lstrip()) :]
            segments.append(Segment(rest, "response", loss=False, cut=True))
        part: Literal["train", "evaluation"] = "train" if self.sets[name].train else "evaluation"
        shown = tuple(segment for segment in segments if segment.text)
        return PreviewRow(name, part, row.row, len(row.input_ids), row.truncated, shown)


@dataclass(frozen=True, slots=True)
class ModelUse:
    """How a plan uses its model. `memory_bytes` is the estimated peak while training."""

    tokenizer: PreTrainedTokenizerBase
    shape: ModelShape
    dtype: torch.dtype
    memory_bytes: int


def model_use(plan: RunPlan, device: torch.device, *, known: dict[str, ModelUse] | None = None) -> ModelUse:
    """Check that a plan's model can be used as asked, without loading its weights. What `known` holds of the
    same model and way of using it is not looked at again.

    Raises InputError where tokenizer, quantisation, target modules or alignment plane can't be used."""
    check_plane(plan)
    options = plan.config.finetune_config
    weights = plan.weights.fingerprint if plan.weights is not None else ""
    key = f"{plan.model.fingerprint} {weights} {options.model_dump_json(include=_USED)}"
    if known is not None and key in known:
        return known[key]
    dtype = resolve_dtype(options, device)
    if options.load_in_8bit or options.load_in_4bit:
        probe(options, device, dtype)
    files = locate(plan.model, options, weights=False)
    if plan.weights is not None:
        locate(plan.weights, options, weights=False)
    tokenizer = load_tokenizer(files, options)
    model = empty_model(files, options)
    parameters = sum(weight.numel() for weight in model.parameters())
    trainable = adapter_size(model, options) if options.is_peft else parameters
    shape = model_shape(model, parameters, trainable)
    checkpointing = options.use_gradient_checkpointing is True
    memory = peak_bytes(shape, options, device=device, dtype=dtype, checkpointing=checkpointing)
    found = ModelUse(tokenizer, shape, dtype, memory)
    if known is not None:
        known[key] = found
    return found


_USED = {
    "revision",
    "trust_remote_code",
    "attn_implementation",
    "dtype",
    "load_in_8bit",
    "load_in_4bit",
    "load_in_16bit",
    "is_peft",
    "r",
    "target_modules",
    "use_gradient_checkpointing",
    "optim",
    "per_device_train_batch_size",
    "max_seq_length",
}
"""The keys that decide whether a model can be used, and what it needs."""


def describe(plan: RunPlan, *, device: str = "auto") -> Description:
    """Work out what a plan amounts to.

    Raises InputError where device, model, tokenizer, quantisation or target modules can't be used, and where
    no row is short enough to train on."""
    config, options = plan.config, plan.config.finetune_config
    chosen = resolve_device(device)
    use = model_use(plan, chosen)
    encoder = encoder_of(plan, use.tokenizer)
    parameters, trainable = use.shape.parameters, use.shape.trainable
    check_lengths(plan, encoder)
    trained, evaluated = _encode(plan, encoder)
    updates, trained_tokens = _work(plan, trained)
    evaluations = 1 + options.epochs
    evaluated_tokens = evaluations * sum(
        2 * len(row.input_ids) for rows in evaluated.values() for row in rows if row is not None
    )
    memory = use.memory_bytes
    torch.set_num_threads(default_threads())
    rate = _measured_rate(chosen, use.dtype)
    checkpointing = options.use_gradient_checkpointing is True
    per_token = operations_per_token(is_peft=options.is_peft, checkpointing=checkpointing)
    work = parameters * (per_token * trained_tokens + FORWARD * evaluated_tokens)
    return Description(
        sets=set_data(plan.splits, _lengths(trained), _lengths(evaluated)),
        updates=updates,
        rows_per_update=units_per_update(options),
        trained_tokens=trained_tokens,
        evaluated_tokens=evaluated_tokens,
        parameters=parameters,
        trainable=trainable,
        device=str(chosen),
        dtype=str(use.dtype).removeprefix("torch."),
        memory_bytes=memory,
        available_bytes=available_bytes(chosen),
        matmul_flops=rate,
        seconds=START_UP_SECONDS + work / (rate * UTILISATION),
        warnings=_warnings(options.max_seq_length, memory, available_bytes(chosen), trained),
        rows=tuple(
            (name, row)
            for name in plan.splits.sets
            for row in (trained.get(name) or evaluated[name])
            if row is not None
        ),
        encoder=encoder,
        nice_responses=config.nice_responses,
        loss_on=options.loss_on,
    )


def encoder_of(plan: RunPlan, tokenizer: PreTrainedTokenizerBase) -> Encoder:
    """What makes tokens of a plan's rows."""
    options = plan.config.finetune_config
    return Encoder(tokenizer, max_seq_length=options.max_seq_length, loss_on=options.loss_on)


def check_lengths(plan: RunPlan, encoder: Encoder) -> None:
    """Raises InputError where of a stream no row is short enough to train on. Looks no further than the first
    that is."""
    phases = plan.strategy(plan.config).phases()
    used = dict.fromkeys(name for phase in phases for sets in phase.streams.values() for name in sets)
    kept = {
        name: any(encoder.encode(row) is not None for row in plan.splits.sets[name].train_examples)
        for name in used
    }
    check_streams(phases, kept, encoder.max_seq_length)


_measured_rate = functools.cache(matmul_rate)
"""Once a process: many plans are described on one machine."""

Rows = dict[str, list[Encoded | None]]


def _encode(plan: RunPlan, encoder: Encoder) -> tuple[Rows, Rows]:
    phases = plan.strategy(plan.config).phases()
    used = dict.fromkeys(name for phase in phases for sets in phase.streams.values() for name in sets)
    trained = {name: encoder.encode_all(plan.splits.sets[name].train_examples) for name in used}
    evaluated = {name: encoder.encode_all(rows.examples) for name, rows in plan.splits.evaluation.items()}
    return trained, evaluated


def _work(plan: RunPlan, trained: Rows) -> tuple[int, int]:
    """Optimiser updates, and tokens that go through training, those of every gradient counted."""
    options = plan.config.finetune_config
    size = units_per_update(options)
    kept = {name: [row for row in rows if row is not None] for name, rows in trained.items()}
    updates, tokens = 0, 0.0
    for phase in plan.strategy(plan.config).phases():
        streams = {
            name: make_stream([kept[each] for each in sets], paired=name in phase.paired)
            for name, sets in phase.streams.items()
        }
        in_phase = phase_updates(phase, {name: len(stream) for name, stream in streams.items()}, options)
        updates += in_phase
        for stream in filter(len, streams.values()):
            mean = sum(len(row.input_ids) for row in stream.rows) / len(stream)
            tokens += in_phase * min(size, len(stream)) * mean
    return updates, int(tokens)


def _lengths(encoded: Rows) -> dict[str, Lengths]:
    return {
        name: Lengths(
            kept=sum(row is not None for row in rows),
            truncated=sum(row is not None and row.truncated for row in rows),
            dropped=sum(row is None for row in rows),
        )
        for name, rows in encoded.items()
    }


def _warnings(limit: int, memory: int, available: int, trained: Rows) -> tuple[str, ...]:
    found = []
    for name, rows in trained.items():
        cut = sum(row is not None and row.truncated for row in rows)
        if rows and cut > len(rows) / 10:
            found.append(f"{name}: {cut} of {len(rows)} training answers are cut at max_seq_length {limit}")
    if memory > available:
        found.append(
            f"the estimated peak of {memory / 2**30:.1f} GiB is more than the "
            f"{available / 2**30:.1f} GiB free: halve per_device_train_batch_size and double "
            "gradient_accumulation_steps for the same update"
        )
    return tuple(found)


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
