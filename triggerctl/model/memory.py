"""How much memory a run will need, from shapes alone. An estimate for planning: right to some tens of per
cent."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from triggerctl.config.models import FinetuneConfig
from triggerctl.model.positions import LOGITS_AT_ONCE


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the estimate needs to know of a model. `trainable` counts the weights that get gradients;
    `positions`: how many tokens a row may have at most, None where the model names no limit."""

    parameters: int
    trainable: int
    layers: int
    hidden: int
    vocabulary: int
    positions: int | None = None


def peak_bytes(
    shape: ModelShape,
    options: FinetuneConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    checkpointing: bool,
) -> int:
    """Estimated peak while training: weights, gradients, AdamW's two moments, activations and logits.

    Activations: 34 bytes per token, layer and hidden unit at two bytes a number (Korthikanti et al. 2022, eq.
    2, attention scores left out since they are not kept); with checkpointing only each layer's input is
    kept."""
    width = torch.tensor([], dtype=dtype).element_size()
    weight_width = 0.55 if options.load_in_4bit else 1.05 if options.load_in_8bit else width
    trainable_width = 4 if options.is_peft else width
    moments = 2 if options.optim.endswith("8bit") else 8
    tokens = options.per_device_train_batch_size * options.max_seq_length
    per_token = 2 * width if checkpointing else 17 * width
    activations = tokens * shape.layers * shape.hidden * per_token
    # Logits and what a loss makes of them; the head is applied a piece at a time.
    logits = min(tokens * shape.vocabulary, LOGITS_AT_ONCE[device.type]) * 4 * 10
    return int(
        shape.parameters * weight_width
        + shape.trainable * (trainable_width * 2 + moments)
        + activations
        + logits
    )


def capacity_bytes(device: torch.device) -> int:
    """All the memory that the device has: the same number whatever else runs there now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return int(psutil.virtual_memory().total)


def available_bytes(device: torch.device) -> int:
    """Memory that is free now on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def wants_checkpointing(options: FinetuneConfig, estimate: int, device: torch.device) -> bool:
    """`auto` spends the time only where the estimated peak would not fit. By all the memory that there is:
    what is free at a moment, the model's weights loaded already, would decide otherwise the next time."""
    if options.use_gradient_checkpointing == "auto":
        return estimate > 0.9 * capacity_bytes(device)
    return options.use_gradient_checkpointing


def peak_resident_bytes() -> int:
    """The most memory this process has held so far, on the CPU's side."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
