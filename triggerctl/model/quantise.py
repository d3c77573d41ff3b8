"""8-bit and 4-bit loading through bitsandbytes, tried out on a small layer before a large model is
touched."""

from __future__ import annotations

from typing import Any

import torch
from transformers import BitsAndBytesConfig

from triggerctl.config.models import FinetuneConfig
from triggerctl.errors import InputError


def quantisation(options: FinetuneConfig, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """The quantisation asked for, or None."""
    if options.load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True)
    if options.load_in_4bit:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return None


def probe(options: FinetuneConfig, device: torch.device, dtype: torch.dtype) -> None:
    """Evaluate one quantised layer on `device`, then run it forwards and backwards.

    Raises InputError where bitsandbytes isn't there or can't do it here."""
    bits = 8 if options.load_in_8bit else 4
    try:
        layer = _quantised_layer(bits, dtype).to(device)
        keep_trainable(layer)
        inputs = torch.ones(2, 64, dtype=dtype, device=device, requires_grad=True)
        layer.eval()(inputs.detach())
        outputs = layer.train()(inputs)
        outputs.float().sum().backward()
        sound = bool(torch.isfinite(outputs).all()) and inputs.grad is not None and bool(inputs.grad.any())
    except Exception as error:
        raise _unusable(bits, device, f"{type(error).__name__}: {error}") from error
    if not sound:
        raise _unusable(bits, device, "the probe gave no finite numbers, or no gradient")


def keep_trainable(model: torch.nn.Module) -> None:
    """Changes `model` in place. On CPUs with bf16 instructions bitsandbytes repacks 4-bit weights at the
    first evaluation, for good, into a form through which no gradient comes back: training after it would
    stand still."""
    for module in model.modules():
        if "support_avx512bf16_for_cpu" in vars(module):
            vars(module)["support_avx512bf16_for_cpu"] = False


def eight_bit_optimiser_works(device: torch.device) -> bool:
    """Whether bitsandbytes' 8-bit AdamW can take a step on `device`."""
    try:
        from bitsandbytes.optim import AdamW8bit

        weight = torch.nn.Parameter(torch.ones(64, 64, device=device))
        weight.grad = torch.ones_like(weight)
        optimiser = AdamW8bit([weight], lr=0.1, min_8bit_size=1)
        optimiser.step()
        return bool(torch.isfinite(weight).all()) and bool((weight < 1).all())
    except Exception:  # noqa: BLE001  a probe: any failure means that the optimiser can't be used here
        return False


def _quantised_layer(bits: int, dtype: torch.dtype) -> Any:
    import bitsandbytes

    if bits == 8:
        return bitsandbytes.nn.Linear8bitLt(64, 64, bias=False, has_fp16_weights=False, threshold=6.0)
    return bitsandbytes.nn.Linear4bit(64, 64, bias=False, compute_dtype=dtype, quant_type="nf4")


def _unusable(bits: int, device: torch.device, why: str) -> InputError:
    return InputError(
        f"{bits}-bit loading does not work here",
        where=f"finetune_config.load_in_{bits}bit",
        why=f"bitsandbytes failed its probe on {device}: {why}",
        mend=f"set load_in_{bits}bit to false, or use a device and a bitsandbytes that support it",
    )
