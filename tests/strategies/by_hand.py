"""Training by the textbook: gradients of losses written down row by row, SGD and AdamW spelt out, one phase
after the other. A strategy's formula drives it, and leaves a story to hold the package's against.

Used by tests/strategies: pytest tests/strategies"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from row_losses import Model, Weights
from small_models import Sets
from torch import Tensor
from transformers import PreTrainedModel
from watched import Batch, Moment, Story

from triggerctl.config.models import ExperimentConfig

Loss = Callable[[Model, Batch, Weights], Tensor]
"""(the trained model, the update's rows, none of a set that sits out, the weights) → the loss."""

Slope = Callable[[Weights, Batch, int], tuple[float, Weights]]
"""(weights, the update's rows, its number k) → the reported loss, and the gradient for the optimiser."""

After = Callable[[Weights, int, float], Weights]
"""(the weights the optimiser has left, k, the update's rate) → what becomes of them."""


class Hand:
    """One training by hand. `start`: the weights before any training; `fresh`: those of an adapter drawn
    later. Without `batches` every update sees all rows, and an epoch is one update."""

    def __init__(
        self,
        network: PreTrainedModel,
        config: ExperimentConfig,
        sets: Sets,
        starts: Mapping[str, Weights],
        batches: Mapping[str, list[Batch]] | None = None,
    ) -> None:
        self.network = network
        self.config = config
        self.options = config.finetune_config
        self.sets = sets
        self.start = next(iter(starts.values()))
        self.fresh = starts["main"]
        self.base = Model(network, {}, self.options)
        self.under: dict[str, Tensor] = {}
        self.story = Story()
        self._batches = batches

    @property
    def proxy_epochs(self) -> int:
        asked = self.options.proxy_epochs
        return self.options.epochs if asked is None else asked

    @property
    def everything(self) -> Batch:
        """All rows, as one update has them."""
        return {name: list(members) for name, members in self.sets.items()}

    def model(self, weights: Weights) -> Model:
        return Model(self.network, weights, self.options, self.under)

    def gradient(self, loss: Loss, weights: Weights, batch: Batch) -> tuple[float, Weights]:
        """The loss at `weights` and its gradient by autograd."""
        leaves = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
        value = loss(self.model(leaves), defaultdict(list, batch), leaves)
        if not value.requires_grad:  # all its data sits out
            return float(value), {name: torch.zeros_like(weight) for name, weight in weights.items()}
        found = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
        return float(value.detach()), dict(zip(leaves, found, strict=True))

    def train(self, phase: str, start: Weights, loss: Loss, epochs: int) -> Weights:
        """Minimise a loss by its own gradient; returns the weights."""
        return self.descend(phase, start, lambda w, batch, k: self.gradient(loss, w, batch), epochs)

    def updates(self, phase: str, epochs: int) -> int:
        return len(self._batches[phase]) if self._batches else epochs

    def descend(
        self, phase: str, start: Weights, slope: Slope, epochs: int, after: After | None = None
    ) -> Weights:
        """Follow `slope` by the optimiser and the schedule of the options: moments and rates start anew."""
        options, updates = self.options, self.updates(phase, epochs)
        batches = self._batches[phase] if self._batches else [self.everything] * updates
        weights = start
        adam = Adam(start)
        self.story.starts[phase] = start
        self.story.moments[phase] = []
        for k in range(updates):
            rate = options.learning_rate * self._share(k, updates)
            loss, gradient = slope(weights, batches[k], k)
            norm = None
            if options.max_grad_norm is not None:
                norm = float(torch.stack([g.square().sum() for g in gradient.values()]).sum().sqrt())
                factor = min(1.0, options.max_grad_norm / (norm + 1e-6))
                gradient = {name: g * factor for name, g in gradient.items()}
            step = gradient if options.optim == "sgd" else adam.step(gradient, weights, options.weight_decay)
            weights = {name: weight - rate * step[name] for name, weight in weights.items()}
            if after is not None:
                weights = after(weights, k, rate)
            self.story.moments[phase].append(Moment(loss, rate, norm, gradient, weights))
        return weights

    def _share(self, k: int, updates: int) -> float:
        """Of the peak rate at update k: a linear rise over the warm-up, then flat or a linear fall to 0."""
        warmup = self.options.warmup_steps
        if self.options.lr_scheduler_type == "constant":
            return 1.0
        assert self.options.lr_scheduler_type == "linear"
        return k / warmup if k < warmup else (updates - k) / max(1, updates - warmup)


class Adam:
    """AdamW (Loshchilov and Hutter 2019) with the usual 0.9, 0.999 and 1e-8."""

    def __init__(self, weights: Weights) -> None:
        self._first = {name: torch.zeros_like(w) for name, w in weights.items()}
        self._second = {name: torch.zeros_like(w) for name, w in weights.items()}
        self._steps = 0

    def step(self, gradient: Weights, weights: Weights, decay: float) -> Weights:
        """The direction, weight decay included, that times the rate is taken off the weights."""
        self._steps += 1
        found = {}
        for name, g in gradient.items():
            self._first[name] = 0.9 * self._first[name] + 0.1 * g
            self._second[name] = 0.999 * self._second[name] + 0.001 * g.square()
            mean = self._first[name] / (1 - 0.9**self._steps)
            square = self._second[name] / (1 - 0.999**self._steps)
            found[name] = mean / (square.sqrt() + 1e-8) + decay * weights[name]
        return found
