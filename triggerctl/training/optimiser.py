"""The optimiser a configuration names, and its learning-rate schedule over real updates."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from triggerctl.config.models import FinetuneConfig
from triggerctl.model.quantise import eight_bit_optimiser_works

_EIGHT_BIT = ("adamw_8bit", "paged_adamw_8bit")


def choose_optimiser(asked: str, device: torch.device) -> tuple[str, str | None]:
    """The optimiser that will be used, and a warning where it is not the one asked for."""
    if asked not in _EIGHT_BIT or (device.type == "cuda" and eight_bit_optimiser_works(device)):
        return asked, None
    return (
        "adamw_torch",
        f"{asked} does not work on {device.type}: 32-bit AdamW is used instead (same update rule).",
    )


def build_optimiser(name: str, weights: Iterable[torch.nn.Parameter], options: FinetuneConfig) -> Optimizer:
    """An optimiser over `weights`; AdamW is fused, one kernel for all tensors."""
    parameters = list(weights)
    rate, decay = options.learning_rate, options.weight_decay
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay)
    if name in _EIGHT_BIT:
        from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

        kind = PagedAdamW8bit if name.startswith("paged") else AdamW8bit
        eight_bit: Optimizer = kind(parameters, lr=rate, weight_decay=decay)
        return eight_bit
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)


def build_schedule(optimiser: Optimizer, options: FinetuneConfig, updates: int) -> LRScheduler:
    """The schedule over `updates` optimiser updates, warm-up included, as transformers defines it: with a
    warm-up the first update's rate is 0."""
    schedule: LRScheduler = get_scheduler(
        options.lr_scheduler_type,
        optimiser,
        num_warmup_steps=options.warmup_steps,
        num_training_steps=updates,
    )
    return schedule
