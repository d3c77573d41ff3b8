"""What a strategy makes of the trained weights once training is over."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from triggerctl.model.causal import CausalModel
from triggerctl.strategies.base import Strategy


def make_endings(strategy: Strategy, model: CausalModel) -> Iterator[tuple[str, str]]:
    """Make each of the strategy's endings to the weights as trained; yields its label and a note of what was
    done while it stands. The last one stays."""
    endings = strategy.endings()
    weights = {name: weight.data for name, weight in model.trainable.items()}
    trained = {name: weight.clone() for name, weight in weights.items()} if len(endings) > 1 else {}
    for ending in endings:
        with torch.no_grad():
            for name, weight in trained.items():
                weights[name].copy_(weight)
            note = strategy.end(ending, weights)
        yield ending, note
