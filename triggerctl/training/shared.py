"""What the untrained model θ₀ says, taken from the cache where another run has found it.

A run's numbers must be the same bit for bit whether they were shared or computed, so the name of an entry is
made of everything that can move a bit: the files that were loaded, the number format, the device, its
threads, the versions of what computes, and the very tokens that were asked about."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from triggerctl import __version__, disk
from triggerctl.config.models import FinetuneConfig
from triggerctl.experiment.cache import Cache, entry_name, read_document, write_document
from triggerctl.model.processor import processor_name
from triggerctl.model.products import library

_FORMAT = 4
_PACKAGES = ("torch", "transformers", "tokenizers", "peft")
_SUM = "crc32"


class Shared:
    """Answers of θ₀ by what decides them. `theta`: what `surroundings` and the caller know of model,
    tokenizer and machine, the same for every question of a run."""

    def __init__(self, cache: Cache, theta: Mapping[str, Any]) -> None:
        self.cache = cache
        self._theta = {"format": _FORMAT, **theta}

    def document(self, kind: str, about: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """Plain data, NaN allowed, read or else computed and kept."""
        entry = f"{kind}/{self._name(about)}.json.gz"
        return self.cache.obtain(entry, compute, reader=read_document, writer=write_document)

    def tensors(
        self, kind: str, about: Mapping[str, Any], compute: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Tensors by name, in the CPU's memory, read or else computed and kept."""
        entry = f"{kind}/{self._name(about)}.safetensors"
        return self.cache.obtain(entry, compute, reader=_read, writer=_write, size=_bytes)

    def _name(self, about: Mapping[str, Any]) -> str:
        return entry_name({"theta": self._theta, **about})


def nothing_shared() -> Shared:
    """For who computes everything."""
    return Shared(Cache(enabled=False), {})


def surroundings(
    network: PreTrainedModel, options: FinetuneConfig, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """What can change the last bit of an answer beside weights and tokens. Gradient checkpointing can't: an
    evaluation keeps nothing for a backward pass. Nor can an adapter whose B is zero: it adds zeros."""
    cuda = device.type == "cuda"
    quantised = options.load_in_8bit or options.load_in_4bit
    return {
        "triggerctl": __version__,
        "packages": {
            name: importlib.metadata.version(name)
            for name in (*_PACKAGES, *(["bitsandbytes"] if quantised else []))
        },
        "cuda": torch.version.cuda,
        "device": device.type,
        "processor": torch.cuda.get_device_name(device) if cuda else processor_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "matmul": torch.get_float32_matmul_precision(),
        "products": library(),
        "dtype": str(dtype),
        "threads": torch.get_num_threads(),
        "attention": network.config.get_text_config()._attn_implementation,
        "quantisation": [options.load_in_8bit, options.load_in_4bit],
        "trust_remote_code": options.trust_remote_code,
    }


def tokenising_packages() -> dict[str, str]:
    """The versions of what turns text to tokens."""
    return {name: importlib.metadata.version(name) for name in ("transformers", "tokenizers", "jinja2")}


def digest(rows: Iterable[Any]) -> str:
    """The hash of plain values in their order."""
    return hashlib.sha256(json.dumps(list(rows)).encode()).hexdigest()


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, disk.before_opening("write", path), metadata={_SUM: str(_sum(tensors))})


def _read(path: Path) -> dict[str, Tensor]:
    """Raises where the file is damaged. The tensors are copies: the file may go while they are in use."""
    with safe_open(disk.before_opening("read", path), framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  not a dict
        if str(_sum(tensors)) != (file.metadata() or {}).get(_SUM):
            raise ValueError("its checksum is wrong")
    return tensors


def _sum(tensors: Mapping[str, Tensor]) -> int:
    total = 0
    for name in sorted(tensors):
        content: Any = tensors[name].reshape(-1).view(torch.uint8).numpy()
        total = zlib.crc32(content, total)
    return total
