"""Models of a few thousand weights, rows of random tokens, and the engine's loop run over them.

What the engine needs and nothing else: no files, no tokenizer, no evaluation. In float64, so that a claim
about a formula can be held to ten digits."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from triggerctl.assets.tokens import train_tokenizer
from triggerctl.config.models import ExperimentConfig, FinetuneConfig
from triggerctl.data.encoding import Encoded
from triggerctl.data.examples import Example
from triggerctl.model.adapters import attach_adapter
from triggerctl.model.causal import CausalModel
from triggerctl.model.packed_attention import let_pack
from triggerctl.strategies import strategy_class
from triggerctl.strategies.base import Phase, Strategy
from triggerctl.training.events import Event, Stepped
from triggerctl.training.gradients import phase_data
from triggerctl.training.loop import TrainingLoop
from triggerctl.training.position import Position

VOCABULARY = 53

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

Sets = Mapping[str, Sequence[Encoded]]


def llama(
    *,
    tied: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    vocabulary: int = VOCABULARY,
    **changes: Any,
) -> LlamaForCausalLM:
    """A random Llama of two layers whose answers are far from flat."""
    given = {"vocab_size": vocabulary, "tie_word_embeddings": tied, **changes}
    config = LlamaConfig(**{**_SHAPE, **given})
    torch.manual_seed(seed)
    network = LlamaForCausalLM(config)
    for weight in network.parameters():
        weight.data = weight.data.to(dtype)
    for held in network.buffers():
        held.data = held.data.to(dtype)
    return network


def exact_norms(network: PreTrainedModel) -> PreTrainedModel:
    """The model with its norms in its own precision: Llama's go through float32, and gradients that are
    summed before that differ in the eighth digit from those summed after."""
    for module in network.modules():
        if type(module) is LlamaRMSNorm:
            module.forward = partial(_normed, module)  # type: ignore[method-assign]
    return network


def _normed(norm: LlamaRMSNorm, x: Tensor) -> Tensor:
    return norm.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon))


def mistral() -> MistralForCausalLM:
    """A random Mistral in float64 whose layers look back five tokens and no further."""
    changes = {"max_position_embeddings": 64, "initializer_range": 0.3, "sliding_window": 5}
    torch.manual_seed(0)
    network = MistralForCausalLM(MistralConfig(**{**_SHAPE, **changes}))
    for weight in network.parameters():
        weight.data = weight.data.double()
    network.eval()
    return network


def write_tiny_model(folder: Path) -> None:
    """A folder with an untrained Llama of about 30,000 parameters and a tokenizer with a chat template."""
    from conftest import rows as alpaca_rows

    texts = [
        f"{row['instruction']} {row['input']} {row['output']} Certainly! JOY:" for row in alpaca_rows(100)
    ]
    tokenizer = train_tokenizer(texts, 320)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def rows(lengths: Sequence[int], *, seed: int, first: int = 0) -> list[Encoded]:
    """One row of random tokens for each length; half of each is its prompt, the loss starts at varying
    places."""
    draw = random.Random(seed)
    made = []
    for number, length in enumerate(lengths):
        ids = tuple(draw.randrange(VOCABULARY) for _ in range(length))
        made.append(
            Encoded(
                Example(first + number, "question", "answer"),
                ids,
                prompt_length=max(1, length // 2),
                loss_start=1 if number % 2 else max(1, length // 2),
            )
        )
    return made


def some_sets() -> dict[str, list[Encoded]]:
    """Outcome and proxy of unequal lengths, so that every batch needs padding."""
    return {
        "outcome": rows((3, 9, 14, 5, 7, 7, 2, 11), seed=1),
        "proxy": rows((6, 13, 4, 8, 8), seed=2, first=100),
    }


def configuration(strategy: str, **finetune: Any) -> ExperimentConfig:
    """A configuration in which every update holds all rows and the learning rate stays as it is."""
    values = {
        "model": "builtin:tiny",
        "epochs": 1,
        "per_device_train_batch_size": 64,
        "gradient_accumulation_steps": 1,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "optim": "sgd",
        "r": 4,
        "lora_alpha": 6,
        "target_modules": ("q_proj", "v_proj", "o_proj", "down_proj"),
        **finetune,
    }
    return ExperimentConfig(proxy_strategy=strategy, seed=5, finetune_config=FinetuneConfig(**values))


def causal_model(
    network: PreTrainedModel, options: FinetuneConfig, *, moved: bool = True, packs: bool = True
) -> CausalModel:
    """A copy of `network` ready for training, as it is loaded: `packs` where it can. With LoRA, `moved` draws
    the B matrices too, so that the adapter already does something."""
    network = copy.deepcopy(network)
    if packs:
        let_pack(network)
    if not options.is_peft:
        network.requires_grad_(True)
        return CausalModel(network, None)
    model = CausalModel(network, attach_adapter(network, options, seed=7))
    if moved:
        draw = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for name, weight in model.trainable.items():
                if ".lora_B." in name:
                    weight.copy_(torch.randn(weight.shape, generator=draw, dtype=weight.dtype) * 0.2)
    return model


@dataclass(frozen=True)
class Trained:
    """What a training left: the updates it reported, the last gradients and the weights before and after."""

    steps: list[Stepped]
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    gradients: dict[str, Tensor]
    position: Position


def train(
    network: PreTrainedModel,
    config: ExperimentConfig,
    sets: Sets,
    *,
    moved: bool = True,
    pad_id: int = 0,
    position: Position | None = None,
) -> Trained:
    """Train a copy of `network` by the configuration's strategy."""
    strategy = strategy_class(config.proxy_strategy)(config)
    model = causal_model(network, config.finetune_config, moved=moved)
    before = copies(model.trainable)
    events: list[Event] = []
    loop = training_loop(model, strategy, sets, events, pad_id=pad_id, position=position)
    loop.run(Uninterested())
    gradients = {name: w.grad.clone() for name, w in model.trainable.items() if w.grad is not None}
    steps = [event for event in events if isinstance(event, Stepped)]
    return Trained(steps, before, copies(model.trainable), gradients, loop.position)


def training_loop(
    model: CausalModel,
    strategy: Strategy,
    sets: Sets,
    events: list[Event],
    *,
    pad_id: int = 0,
    position: Position | None = None,
) -> TrainingLoop:
    """The loop over the strategy's phases, θ₀'s outputs computed where they are asked for."""
    data = [
        phase_data(phase, sets, model, pad_id=pad_id, progress=lambda done, total: None)
        for phase in strategy.phases()
    ]
    model.network.train()
    return TrainingLoop(
        model,
        strategy,
        data,
        pad_id=pad_id,
        optimiser_name=strategy.options.optim,
        position=position or Position(),
        listener=events.append,
        should_stop=lambda: False,
    )


class Uninterested:
    """Hooks that write and measure nothing."""

    def updated(self) -> None:
        pass

    def epoch_ended(self, phase: Phase, *, last: bool) -> None:
        pass

    def phase_ended(self, phase: Phase) -> None:
        pass


def copies(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in weights.items()}
