"""How fast a run was, and how near the floor: the time its tokens would have taken if the machine had done
nothing but multiply matrices at the best rate that was ever measured on it.

Floor = trained tokens × c × parameters + evaluated tokens × 2 × parameters. A forward pass makes 2 operations
a token and parameter; c is 6 for full fine-tuning, 4 for LoRA, which wants no gradient of frozen weights, and
2 more where checkpointing runs the forward pass twice. Padding is work, but none of the floor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from triggerctl.experiment.cache import Cache, entry_name, read_document, write_document
from triggerctl.model.device import matmul_rate
from triggerctl.model.operations import FORWARD, widths
from triggerctl.model.processor import processor_name
from triggerctl.model.products import library

KIND = "matmul-rates"
_SECONDS = 0.15
_MEASURED: dict[str, float] = {}
"""Of this process, by entry of the cache."""
_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Work:
    """What a run's time went into. `trained`: the tokens of all rows trained on, what rows have in common
    counted for each of them, so that sharing it shows as speed. `evaluated`: tokens that went through the
    model, what prompts have in common once, and not those taken from the cache. `operations` a trained token
    and parameter; `matmul_rate`: operations a second."""

    trained: int
    evaluated: int
    parameters: int
    operations: int
    matmul_rate: float

    def throughput(self, timings: Mapping[str, float]) -> dict[str, float]:
        """Rates and shares of the floor, for results.json; one is left out where there was no such work."""
        training = timings.get("training", 0.0)
        evaluation = timings.get("evaluation", 0.0) + timings.get("base_evaluation", 0.0)
        trained_floor = self.trained * self.operations * self.parameters / self.matmul_rate
        evaluated_floor = self.evaluated * FORWARD * self.parameters / self.matmul_rate
        found = {"matmul_operations_per_second": self.matmul_rate}
        if self.trained and training > 0:
            found["trained_tokens_per_second"] = self.trained / training
            found["training_share_of_floor"] = trained_floor / training
        if self.evaluated and evaluation > 0:
            found["evaluated_tokens_per_second"] = self.evaluated / evaluation
            found["evaluation_share_of_floor"] = evaluated_floor / evaluation
        whole = sum(timings.values())
        if whole > 0:
            found["share_of_floor"] = (trained_floor + evaluated_floor) / whole
        return found


def operations_per_token(*, is_peft: bool, checkpointing: bool) -> int:
    """c: operations of training by token and parameter."""
    return (4 if is_peft else 6) + (FORWARD if checkpointing else 0)


def best_matmul_rate(
    network: PreTrainedModel, device: torch.device, dtype: torch.dtype, cache: Cache
) -> float:
    """Operations a second in products of the model's own shape, with this process's threads: the best of what
    is measured now and what earlier runs on such a machine have left in the cache. A run that was disturbed
    by another so does not take its own trouble for the machine's. A process measures once."""
    hidden, intermediate = widths(network)
    entry = _entry(device, dtype, hidden, intermediate)
    if entry in _MEASURED:
        return _MEASURED[entry]
    shelf = Cache(enabled=cache.enabled)  # of its own: a rate is nothing that a run's numbers depend on
    known = shelf.read(entry, lambda path: float(read_document(path))) or 0.0
    measured = matmul_rate(
        device, dtype, inner=hidden, columns=intermediate, rows=_rows(device), seconds=_SECONDS
    )
    if measured > known:
        shelf.keep(entry, lambda path: write_document(path, measured))
    _MEASURED[entry] = max(known, measured)
    return _MEASURED[entry]


def _rows(device: torch.device) -> int:
    return 1024 if device.type == "cpu" else 8192


def _entry(device: torch.device, dtype: torch.dtype, hidden: int, intermediate: int) -> str:
    about = {
        "format": _FORMAT,
        "torch": torch.__version__,
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "device": device.type,
        "dtype": str(dtype),
        "products": library(),
        "threads": torch.get_num_threads(),
        "shape": [_rows(device), hidden, intermediate],
    }
    return f"{KIND}/{entry_name(about)}.json.gz"
