"""Whether a plan's model can be used as asked, and what it needs, found out without its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from triggerctl.model.adapters import adapter_size
from triggerctl.model.device import resolve_dtype
from triggerctl.model.load import empty_model, load_tokenizer, locate
from triggerctl.model.memory import ModelShape, peak_bytes
from triggerctl.model.quantise import probe
from triggerctl.training.plan import RunPlan
from triggerctl.training.plane_files import check_plane
from triggerctl.training.setup import model_shape

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
