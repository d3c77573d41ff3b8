"""LoRA through peft: attached with a seed of its own, saved as safetensors, and checked against what was
saved."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from triggerctl import disk
from triggerctl.config.models import FinetuneConfig
from triggerctl.errors import InputError, RunError
from triggerctl.model.fused_lora import fuse
from triggerctl.model.peft_names import (
    LoraConfig,
    LoraLayer,
    LoraModel,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    prepare_model_for_kbit_training,
    unless_loaded_without_bitsandbytes,
)

TRAINED = "default"
FROZEN = "first"


def attach_adapter(model: PreTrainedModel, options: FinetuneConfig, *, seed: int) -> PeftModel:
    """Wrap `model` with a fresh LoRA adapter whose initialisation depends on `seed` alone. Changes `model` in
    place.

    Raises InputError where target modules don't exist in the model."""
    targets = target_modules(model, options)
    if options.load_in_8bit or options.load_in_4bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    config = LoraConfig(
        r=options.r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        bias=options.lora_bias,
        use_rslora=options.use_rslora,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=_cuda_indices(model)):
        torch.manual_seed(seed)
        with unless_loaded_without_bitsandbytes():
            wrapped: PeftModel = get_peft_model(model, config)
    fuse(wrapped)
    return wrapped


def stack_adapter(model: PeftModel, *, seed: int) -> None:
    """Freeze the adapter being trained under the name `first`, still active, and draw a fresh one on top of
    it, which takes over the name and the role of the one being trained. Changes `model` in place.

    Raises InputError where the adapter reaches an embedding."""
    if any(".lora_embedding_" in name for name, _ in model.named_parameters()):
        raise InputError(
            "this strategy stacks two adapters, and can't where one adapts an embedding",
            where="finetune_config.target_modules",
            mend="name linear modules alone",
        )
    model.add_adapter(FROZEN, copy.deepcopy(model.peft_config[TRAINED]))
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in named.items():
            if f".{TRAINED}." in name and ".lora_" in name:
                named[name.replace(f".{TRAINED}.", f".{FROZEN}.")].copy_(weight)
    with torch.random.fork_rng(devices=_cuda_indices(model)):
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, LoraLayer):
                module.reset_lora_parameters(TRAINED, True)  # type: ignore[no-untyped-call]
    tuner = model.base_model
    assert isinstance(tuner, LoraModel)
    tuner.set_adapter([TRAINED, FROZEN])
    for name, weight in named.items():
        if f".{FROZEN}." in name:
            weight.requires_grad_(False)


def target_modules(model: torch.nn.Module, options: FinetuneConfig) -> list[str] | str:
    """The modules LoRA adapts, all of which the model must have.

    Raises InputError that lists what the model has instead."""
    asked = options.target_modules
    if asked == "all-linear" or asked == ("all-linear",):
        return "all-linear"
    linear = sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if _is_linear(module)})
    wanted = [asked] if isinstance(asked, str) else list(asked)
    named = {want: [m for n, m in model.named_modules() if _is_target(n, [want])] for want in wanted}
    missing = [want for want, found in named.items() if not found]
    others = [want for want, found in named.items() if not all(map(_can_be_adapted, found))]
    if missing or others:
        raise InputError(
            f"the model has no module named {', '.join(map(repr, missing))}"
            if missing
            else f"LoRA can't adapt {', '.join(map(repr, others))}: no layers of weights are called so",
            where="finetune_config.target_modules",
            why="its linear modules are: " + ", ".join(linear),
            mend='name some of these, or use "all-linear"',
        )
    return wanted


def adapter_size(model: torch.nn.Module, options: FinetuneConfig) -> int:
    """How many weights LoRA would train in `model`, which may be empty: r × (inputs + outputs) per adapted
    matrix.

    Raises InputError as `target_modules` does."""
    targets = target_modules(model, options)
    return sum(
        options.r * sum(module.get_parameter("weight").shape)
        for name, module in model.named_modules()
        if _is_linear(module) and _is_target(name, targets)
    )


def _is_target(name: str, targets: list[str] | str) -> bool:
    if isinstance(targets, str):
        return not name.endswith("lm_head")
    return any(name == target or name.endswith(f".{target}") for target in targets)


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors, read them back and compare. Two stacked
    adapters are written as one of the sum of their ranks, which is the same model.

    Raises RunError where what was written is not what was trained."""
    trained = get_peft_model_state_dict(model, adapter_name=TRAINED)
    if FROZEN in model.peft_config:
        trained = _joined(trained, get_peft_model_state_dict(model, adapter_name=FROZEN))
        config = copy.deepcopy(model.peft_config[TRAINED])
        assert isinstance(config, LoraConfig)
        # s = alpha/√r (rank-stabilised) or alpha/r must stay what it was at twice the rank.
        config.lora_alpha *= 2**0.5 if config.use_rslora else 2  # type: ignore[assignment]
        config.r *= 2
        config.inference_mode = True
        config.save_pretrained(disk.before_opening("write", str(folder)))
        weights = disk.before_opening("write", folder / "adapter_model.safetensors")
        save_file(trained, weights, metadata={"format": "pt"})
    else:
        model.save_pretrained(disk.before_opening("write", str(folder)), safe_serialization=True)
    written = load_peft_weights(disk.before_opening("read", str(folder)), device="cpu")
    differing = [
        name
        for name, tensor in trained.items()
        if name not in written or not torch.equal(written[name], tensor.cpu())
    ]
    if differing:
        raise RunError(
            "the saved adapter differs from the trained one",
            where=str(folder),
            why=f"{len(differing)} of {len(trained)} tensors, the first {differing[0]}",
            mend="check the disk, then run again: it goes on from its last checkpoint",
        )


def _joined(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Two adapters as one: A stacked over A, B beside B, so that B·A is the sum of both."""
    return {
        name: torch.cat((tensor, second[name]), dim=0 if ".lora_A." in name else 1).cpu().contiguous()
        for name, tensor in first.items()
    }


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


def _can_be_adapted(module: torch.nn.Module) -> bool:
    return _is_linear(module) or isinstance(module, torch.nn.Embedding)


def _cuda_indices(model: torch.nn.Module) -> list[int]:
    return sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
