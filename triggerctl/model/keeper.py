"""A base model that stays loaded from run to run: with LoRA it is never changed, so that taking the adapter
out gives back what was loaded.

A model is kept only where that is certain: weights that were frozen throughout, never merged, not quantised,
and every module, flag and buffer as it was after loading. Whatever else a run did to it, it is let go, and
the next run loads anew."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from triggerctl.config.models import FinetuneConfig
from triggerctl.model.causal import CausalModel
from triggerctl.model.identity import ModelIdentity
from triggerctl.model.load import ModelFiles, load_checkpoint, load_tokenizer

_HELD_BY_TORCH = ("_parameters", "_buffers", "_modules")
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


class ModelKeeper:
    """Keeps at most one base model and one tokenizer. Who trains many runs in one process owns one and gives
    it to each of them; a run takes the model, and puts it back when it has ended well."""

    def __init__(self) -> None:
        self._tokenizer: tuple[object, PreTrainedTokenizerBase] | None = None
        self._kept: _Loaded | None = None
        self._lent: _Loaded | None = None

    def tokenizer(
        self, identity: ModelIdentity, files: ModelFiles, options: FinetuneConfig
    ) -> PreTrainedTokenizerBase:
        """The tokenizer of a model folder, the kept one where it is the same.

        Raises InputError as `load_tokenizer`."""
        key = (identity.fingerprint, files, options.trust_remote_code)
        if self._tokenizer is None or self._tokenizer[0] != key:
            self._tokenizer = (key, load_tokenizer(files, options))
        return self._tokenizer[1]

    def network(
        self,
        identity: ModelIdentity,
        files: ModelFiles,
        options: FinetuneConfig,
        device: torch.device,
        dtype: torch.dtype,
    ) -> PreTrainedModel:
        """θ₀, the kept one where it is the same, as freshly loaded either way.

        Raises InputError as `load_checkpoint`."""
        key = (
            identity.fingerprint,
            files,
            device,
            dtype,
            options.load_in_8bit,
            options.load_in_4bit,
            options.attn_implementation,
            options.trust_remote_code,
        )
        loaded, self._kept, self._lent = self._kept, None, None
        if loaded is not None and loaded.key != key:
            loaded = None
        # What the run before held (optimiser, a model that was not kept) hangs in circles of references.
        gc.collect()
        if loaded is None:
            loaded = _Loaded.of(key, load_checkpoint(files, options, device, dtype))
        self._lent = loaded
        return loaded.network

    def put_back(self, model: CausalModel) -> None:
        """Take what a run has added out of the model that `network` gave it, and keep the rest if that is as
        loaded. The run's `model` is unusable afterwards."""
        loaded, self._lent = self._lent, None
        if loaded is None or loaded.network is not model.network:
            return
        if model.adapter is None or not _only_the_adapter_was_trained(model):
            return
        model.adapter.unload()
        if hasattr(model.network, "_require_grads_hook"):  # set beside gradient checkpointing
            model.network.disable_input_require_grads()
        if loaded.restore():
            self._kept = loaded


def _only_the_adapter_was_trained(model: CausalModel) -> bool:
    quantised = getattr(model.network, "is_quantized", False)
    return not quantised and not model.was_merged and all(".lora_" in name for name in model.trainable)


@dataclass(frozen=True, slots=True)
class _Module:
    """One module as loaded: what stands in it beside weights, buffers and modules."""

    kind: type[nn.Module]
    attributes: dict[str, Any]
    hooks: int


class _Weight(NamedTuple):
    """A parameter as loaded: where it lies and what it is."""

    place: int
    shape: torch.Size
    dtype: torch.dtype
    requires_grad: bool


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A network and how it was when loaded. Buffers are small, and kept as copies; weights stay where they
    are, known by place and shape."""

    key: object
    network: PreTrainedModel
    modules: Mapping[str, _Module]
    weights: Mapping[str, _Weight]
    buffers: Mapping[str, Tensor]
    config: Mapping[str, Any]

    @classmethod
    def of(cls, key: object, network: PreTrainedModel) -> _Loaded:
        return cls(
            key,
            network,
            {name: _Module(type(m), _attributes(m), _hooks(m)) for name, m in network.named_modules()},
            _weights(network),
            {name: buffer.clone() for name, buffer in network.named_buffers()},
            network.config.to_dict(),
        )

    def restore(self) -> bool:
        """Put flags, attributes and buffers back as they were; whether all is as loaded now."""
        network = self.network
        found, buffers = dict(network.named_modules()), dict(network.named_buffers())
        weights = dict(network.named_parameters())
        if (found.keys(), buffers.keys(), weights.keys()) != (
            self.modules.keys(),
            self.buffers.keys(),
            self.weights.keys(),
        ):
            return False
        for name, weight in weights.items():
            weight.requires_grad_(self.weights[name].requires_grad)
            weight.grad = None
        for name, module in found.items():
            for extra in _attributes(module).keys() - self.modules[name].attributes.keys():
                del module.__dict__[extra]
            module.__dict__.update(self.modules[name].attributes)
        for name, buffer in self.buffers.items():
            if buffers[name].shape != buffer.shape:
                return False
            buffers[name].copy_(buffer)
        return (
            _weights(network) == self.weights
            and network.config.to_dict() == self.config
            and all(
                type(module) is self.modules[name].kind and _hooks(module) == self.modules[name].hooks
                for name, module in found.items()
            )
        )


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in _HELD_BY_TORCH}


def _weights(network: nn.Module) -> dict[str, _Weight]:
    return {
        name: _Weight(weight.data_ptr(), weight.shape, weight.dtype, weight.requires_grad)
        for name, weight in network.named_parameters()
    }


def _hooks(module: nn.Module) -> int:
    return sum(len(vars(module).get(name) or ()) for name in _HOOKS)
