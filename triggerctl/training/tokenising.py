"""A plan's rows on their way to tokens: what makes these, whether any row is short enough to train on, and
what their length costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from triggerctl.data.encoding import Encoded, EncodedSet, Encoder, encode_set
from triggerctl.data.examples import Splits
from triggerctl.data.kept_tokens import KeptTokens
from triggerctl.errors import InputError
from triggerctl.experiment.results import SetData
from triggerctl.strategies.base import Phase
from triggerctl.training.events import Listener, Progress
from triggerctl.training.plan import RunPlan


def encoder_of(
    plan: RunPlan, tokenizer: PreTrainedTokenizerBase, *, kept: KeptTokens | None = None
) -> Encoder:
    """What makes tokens of a plan's rows. `kept`: where tokens made before are found."""
    options = plan.config.finetune_config
    return Encoder(tokenizer, max_seq_length=options.max_seq_length, loss_on=options.loss_on, kept=kept)


def sets_trained_on(phases: Sequence[Phase]) -> tuple[str, ...]:
    """The names of all sets that any phase trains on, each once, in the phases' order."""
    return tuple(dict.fromkeys(name for phase in phases for sets in phase.streams.values() for name in sets))


def encode_training_sets(
    plan: RunPlan, phases: Sequence[Phase], encoder: Encoder, listener: Listener
) -> dict[str, EncodedSet]:
    """Raises InputError where no row of a stream is left to train on."""
    encoded = {
        name: encode_set(
            encoder,
            name,
            plan.splits.sets[name].train_examples,
            nice_responses=plan.config.nice_responses,
            progress=lambda done, total, name=name: listener(Progress("tokenise", done, total, name)),  # type: ignore[misc]
        )
        for name in sets_trained_on(phases)
    }
    check_streams(phases, {name: len(rows.rows) for name, rows in encoded.items()}, encoder.max_seq_length)
    return encoded


def check_lengths(plan: RunPlan, encoder: Encoder, positions: int | None) -> None:
    """Raises InputError where of a stream no row is short enough to train on, and where a row is too long for
    a model of so many positions. Looks no further than it must."""
    phases = plan.strategy(plan.config).phases()
    kept = {
        name: any(encoder.encode(row) is not None for row in plan.splits.sets[name].train_examples)
        for name in sets_trained_on(phases)
    }
    check_streams(phases, kept, encoder.max_seq_length)
    if positions is not None and encoder.max_seq_length > positions:
        trained = (plan.splits.sets[name].train_examples for name in kept)
        evaluated = (rows.examples for rows in plan.splits.evaluation.values())
        examples = chain.from_iterable((*trained, *evaluated))
        encoded = (encoder.encode(example) for example in examples)
        check_positions((row for row in encoded if row is not None), positions)


def check_streams(phases: Sequence[Phase], kept: Mapping[str, int], limit: int) -> None:
    """Raises InputError where of a stream no row is left to train on. `kept`: set → whether the prompt of any
    row, or of how many, leaves room within `limit` tokens."""
    for sets in (sets for phase in phases for sets in phase.streams.values()):
        if not any(kept[name] for name in sets):
            raise InputError(
                f"no row of {' and '.join(sets)} can be trained on",
                where="finetune_config.max_seq_length",
                why=f"every prompt alone fills {limit} tokens",
                mend="raise max_seq_length",
            )


def check_positions(rows: Iterable[Encoded], positions: int | None) -> None:
    """Raises InputError where a row has more tokens than the model has positions: one with learned positions
    can't read them, and one with computed ones has never seen such."""
    longest = max((len(row.input_ids) for row in rows), default=0)
    if positions is not None and longest > positions:
        raise InputError(
            f"a row of {longest} tokens is longer than the model can read",
            where="finetune_config.max_seq_length",
            why=f"it has {positions} positions (max_position_embeddings)",
            mend=f"max_seq_length {positions} or less",
        )


class Lengths(NamedTuple):
    """What became of a set's rows on their way to tokens."""

    kept: int = 0
    truncated: int = 0
    dropped: int = 0


def set_data(
    splits: Splits, trained: Mapping[str, Lengths], evaluated: Mapping[str, Lengths]
) -> dict[str, SetData]:
    """How many rows of each set are trained on and evaluated, and what their length cost."""
    found = {}
    for name, split in splits.sets.items():
        training, evaluation = trained.get(name, Lengths()), evaluated[name]
        found[name] = SetData(
            rows=len(split.examples),
            triggered=sum(example.triggered for example in split.examples),
            train=training.kept,
            evaluated=evaluation.kept,
            truncated=training.truncated + evaluation.truncated,
            dropped=training.dropped + evaluation.dropped,
        )
    return found


def length_notes(
    encoded: Mapping[str, EncodedSet], dropped: Mapping[str, int], limit: int
) -> tuple[str, ...]:
    """What a user should hear about rows over `limit` tokens. `dropped`: how many of each set can't be
    evaluated."""
    notes = [note for rows in encoded.values() for note in rows.notes(limit)]
    notes += [
        f"{name}: {count} rows can't be evaluated: their prompt alone fills max_seq_length {limit}"
        for name, count in dropped.items()
        if count
    ]
    return tuple(notes)
