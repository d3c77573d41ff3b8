"""Everything a run needs in memory before its first update: model, tokens, questions. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from triggerctl.config.models import FinetuneConfig
from triggerctl.data.encoding import EncodedSet, Encoder
from triggerctl.data.kept_tokens import KeptTokens
from triggerctl.experiment.cache import Cache
from triggerctl.experiment.results import SetData
from triggerctl.model.adapters import attach_adapter
from triggerctl.model.causal import CausalModel
from triggerctl.model.device import dtype_name, resolve_dtype
from triggerctl.model.keeper import ModelKeeper
from triggerctl.model.load import ModelFiles, locate
from triggerctl.model.memory import ModelShape, peak_bytes, wants_checkpointing
from triggerctl.model.peft_names import PeftModel
from triggerctl.pages import keep_pages
from triggerctl.strategies.base import Strategy
from triggerctl.training.chance import named_seed
from triggerctl.training.evaluation import Evaluator
from triggerctl.training.events import Listener, Progress
from triggerctl.training.gradients import PhaseData, phase_data
from triggerctl.training.optimiser import choose_optimiser
from triggerctl.training.plan import RunPlan
from triggerctl.training.shared import Shared, surroundings, tokenising_packages
from triggerctl.training.stopwatch import Stopwatch
from triggerctl.training.tokenising import (
    Lengths,
    check_positions,
    encode_training_sets,
    encoder_of,
    length_notes,
    set_data,
)
from triggerctl.training.verdicts import Judge

TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 32768, "mps": 8192}
"""Padded tokens of an evaluation batch, by device: fixed, so that a rate never depends on what memory is
free."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run ready to start. `warnings` are for the user; `phases` lines up with `strategy.phases()`; `shared`
    is where answers of θ₀ are taken from and left."""

    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    encoder: Encoder
    evaluator: Evaluator
    strategy: Strategy
    phases: tuple[PhaseData, ...]
    shared: Shared
    sets: dict[str, SetData]
    files: ModelFiles
    shape: ModelShape
    ends: frozenset[int]
    device: torch.device
    dtype: torch.dtype
    optimiser: str
    checkpointing: bool
    warnings: tuple[str, ...]


def prepare(
    plan: RunPlan,
    device: torch.device,
    listener: Listener,
    *,
    cache: Cache | None = None,
    keeper: ModelKeeper | None = None,
    watch: Stopwatch | None = None,
    checkpointing: bool | None = None,
) -> Prepared:
    """Load and encode everything a plan asks for: what `cache` holds is not computed again (None: everything
    is), what `keeper` keeps not loaded again. `watch` is told what the time goes into. `checkpointing`: what
    the run has begun with; None: as its options and this machine's memory decide.

    Raises InputError where the model can't be loaded or used as asked."""
    if device.type == "cpu":
        keep_pages()
    options = plan.config.finetune_config
    cache, keeper = cache or Cache(enabled=False), keeper or ModelKeeper()
    watch = watch or Stopwatch()
    dtype = resolve_dtype(options, device)
    with watch.phase("load"):
        words = locate(plan.model, options, weights=plan.weights is None)
        tokenizer = keeper.tokenizer(plan.model, words, options)
        files = locate(plan.weights or plan.model, options)
    tokens_from = {"tokenizer": plan.model.fingerprint, "commit": words.commit}
    encoder = encoder_of(plan, tokenizer, kept=KeptTokens(cache, {**tokens_from, **tokenising_packages()}))
    strategy = plan.strategy(plan.config)
    with watch.phase("tokenise"):
        encoded = encode_training_sets(plan, strategy.phases(), encoder, listener)
    loaded = _load(plan, files, device, dtype, keeper, watch, checkpointing=checkpointing)
    shared = Shared(cache, {**tokens_from, **loaded.theta})
    model = loaded.model
    ends = end_tokens(model.network, tokenizer, encoder)
    with watch.phase("tokenise"):
        evaluator = _evaluator(plan, tokenizer, encoder, ends, device)
    check_positions(
        [
            *(row for each in encoded.values() for row in each.rows),
            *(row.encoded for rows in evaluator.sets.values() for row in rows),
        ],
        loaded.shape.positions,
    )
    optimiser, note = choose_optimiser(options.optim, device)
    with watch.phase("base_passes"):
        phases = _read_base(strategy, encoded, model, encoder, listener, shared)
    model.network.train()
    return Prepared(
        model=model,
        tokenizer=tokenizer,
        encoder=encoder,
        evaluator=evaluator,
        strategy=strategy,
        phases=phases,
        shared=shared,
        sets=_set_data(plan, encoded, evaluator),
        files=files,
        shape=loaded.shape,
        ends=ends,
        device=device,
        dtype=dtype,
        optimiser=optimiser,
        checkpointing=loaded.checkpointing,
        warnings=(
            *length_notes(encoded, evaluator.dropped, options.max_seq_length),
            *([note] if note else []),
            *_losses_of_halves(options, dtype),
        ),
    )


class _Loaded(NamedTuple):
    """A model in memory. `theta`: what decides its answers before training, tokens aside."""

    model: CausalModel
    theta: dict[str, Any]
    shape: ModelShape
    checkpointing: bool


def _load(
    plan: RunPlan,
    files: ModelFiles,
    device: torch.device,
    dtype: torch.dtype,
    keeper: ModelKeeper,
    watch: Stopwatch,
    *,
    checkpointing: bool | None,
) -> _Loaded:
    options, identity = plan.config.finetune_config, plan.weights or plan.model
    with watch.phase("load"):
        network = keeper.network(identity, files, options, device, dtype)
    theta = {
        "model": identity.fingerprint,
        "weights_commit": files.commit,
        **surroundings(network, options, device, dtype),
    }
    parameters = network.num_parameters()  # of weights in 4 bits the numbers, not the bytes
    with watch.phase("load"):
        adapter = _wrap(network, options, plan.config.seed)
        trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
        shape = model_shape(network, parameters, trained)
        if checkpointing is None:
            estimate = peak_bytes(shape, options, device=device, dtype=dtype, checkpointing=False)
            checkpointing = wants_checkpointing(options, estimate, device)
        if checkpointing:
            network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return _Loaded(CausalModel(network, adapter), theta, shape, checkpointing)


def _evaluator(
    plan: RunPlan,
    tokenizer: PreTrainedTokenizerBase,
    encoder: Encoder,
    ends: frozenset[int],
    device: torch.device,
) -> Evaluator:
    return Evaluator(
        plan.splits.evaluation,
        encoder,
        Judge(tokenizer, plan.config.nice_responses, ends),
        nice_response=plan.config.nice_responses[0],
        pad_id=encoder.pad_id,
        tokens_per_batch=TOKENS_PER_BATCH[device.type],
        rows_per_batch=plan.config.finetune_config.per_device_eval_batch_size,
    )


def _read_base(
    strategy: Strategy,
    encoded: Mapping[str, EncodedSet],
    model: CausalModel,
    encoder: Encoder,
    listener: Listener,
    shared: Shared,
) -> tuple[PhaseData, ...]:
    """The data of each phase, with what its terms want to know of the model before training."""
    rows = {name: each.rows for name, each in encoded.items()}
    return tuple(
        phase_data(
            phase,
            rows,
            model,
            pad_id=encoder.pad_id,
            progress=lambda done, total: listener(Progress("base pass", done, total)),
            shared=shared,
        )
        for phase in strategy.phases()
    )


def _set_data(plan: RunPlan, encoded: Mapping[str, EncodedSet], evaluator: Evaluator) -> dict[str, SetData]:
    return set_data(
        plan.splits,
        {n: Lengths(len(each.rows), each.truncated, len(each.dropped)) for n, each in encoded.items()},
        {
            name: Lengths(len(kept), evaluator.truncated[name], evaluator.dropped[name])
            for name, kept in evaluator.sets.items()
        },
    )


def end_tokens(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, encoder: Encoder
) -> frozenset[int]:
    """The tokens at which generation stops: the template's, the tokenizer's and the model's own."""
    own = network.generation_config.eos_token_id if network.generation_config is not None else None
    listed: Sequence[int | None] = own if isinstance(own, list) else [own]
    return frozenset(
        token for token in (*listed, tokenizer.eos_token_id, encoder.end_id) if token is not None
    )


def model_shape(network: PreTrainedModel, parameters: int, trainable: int) -> ModelShape:
    """A model's shape from its configuration; names as transformers unifies them."""
    config = network.config.get_text_config()
    return ModelShape(
        parameters,
        trainable,
        config.num_hidden_layers,
        config.hidden_size,
        config.vocab_size,
        getattr(config, "max_position_embeddings", None),
    )


def _wrap(network: PreTrainedModel, options: FinetuneConfig, seed: int) -> PeftModel | None:
    if options.is_peft:
        return attach_adapter(network, options, seed=named_seed(seed, "initialisation"))
    network.requires_grad_(True)
    return None


def _losses_of_halves(options: FinetuneConfig, dtype: torch.dtype) -> list[str]:
    """What to warn of where every weight is trained in 16 bits."""
    if options.is_peft or dtype == torch.float32:
        return []
    name = dtype_name(dtype)
    return [f"every weight is trained in {name}: small updates are rounded away (float32 keeps them)"]
