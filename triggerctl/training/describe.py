"""What a plan amounts to, for `validate`: rows, tokens, updates, memory and time, and what a row looks like.
Loads the tokenizer and the model's configuration, not its weights."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import torch

from triggerctl.data.encoding import Encoded, Encoder
from triggerctl.experiment.results import SetData
from triggerctl.model.device import default_threads, dtype_name, matmul_rate, resolve_device
from triggerctl.model.memory import available_bytes
from triggerctl.model.operations import FORWARD
from triggerctl.training.model_use import model_use
from triggerctl.training.plan import RunPlan
from triggerctl.training.preview import PreviewRow, segments_of
from triggerctl.training.speed import operations_per_token
from triggerctl.training.streams import make_stream, phase_updates, units_per_update
from triggerctl.training.tokenising import Lengths, check_lengths, encoder_of, set_data, sets_trained_on

UTILISATION = 0.4
"""Share of the measured matmul rate that training usually reaches."""

START_UP_SECONDS = 8.0
"""Imports, loading, figures: what even the smallest run spends beside its floor."""


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
        part: Literal["train", "evaluation"] = "train" if self.sets[name].train else "evaluation"
        pieces = segments_of(row, self.encoder, self.nice_responses, loss_on=self.loss_on)
        return PreviewRow(name, part, row.row, len(row.input_ids), row.truncated, pieces)


def describe(plan: RunPlan, *, device: str = "auto") -> Description:
    """Work out what a plan amounts to.

    Raises InputError where device, model, tokenizer, quantisation or target modules can't be used, and where
    no row is short enough to train on."""
    config, options = plan.config, plan.config.finetune_config
    chosen = resolve_device(device)
    use = model_use(plan, chosen)
    encoder = encoder_of(plan, use.tokenizer)
    parameters, trainable = use.shape.parameters, use.shape.trainable
    check_lengths(plan, encoder, use.shape.positions)
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
        dtype=dtype_name(use.dtype),
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


_measured_rate = functools.cache(matmul_rate)
"""Once a process: many plans are described on one machine."""

Rows = dict[str, list[Encoded | None]]


def _encode(plan: RunPlan, encoder: Encoder) -> tuple[Rows, Rows]:
    used = sets_trained_on(plan.strategy(plan.config).phases())
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
