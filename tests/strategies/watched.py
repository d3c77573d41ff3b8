"""A training by the package, with everything it did on the way kept: what each update's optimiser got, where
it left the weights, which rows it saw. In the same shape as a training by hand (by_hand.py).

Used by tests/strategies: pytest tests/strategies"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from row_losses import Weights
from small_models import Sets, Uninterested, causal_model, copies, training_loop
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import PreTrainedModel

from triggerctl.config.models import ExperimentConfig
from triggerctl.data.encoding import Encoded
from triggerctl.model.causal import CausalModel, Ready
from triggerctl.strategies import strategy_class
from triggerctl.strategies.base import Strategy
from triggerctl.training.events import Event, PhaseStarted, Stepped

Ids = tuple[int, ...]
Batch = dict[str, list[Encoded]]
"""Set → its rows in one update; a set that sits out is missing."""


@dataclass(frozen=True)
class Moment:
    """One update: the loss, its terms, the rate, the norm before clipping, the gradient that the optimiser
    got, and the weights after it."""

    loss: float
    rate: float
    norm: float | None
    gradient: Weights
    weights: Weights
    terms: dict[str, float] = field(default_factory=dict)


@dataclass
class Story:
    """A whole training: phase → weights it starts from, and its updates; and the weights at the very end, one
    for each ending."""

    starts: dict[str, Weights] = field(default_factory=dict)
    moments: dict[str, list[Moment]] = field(default_factory=dict)
    endings: list[tuple[str, Weights]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    batches: dict[str, list[Batch]] = field(default_factory=dict)

    @property
    def trained(self) -> Weights:
        """The weights as training leaves them."""
        return self.moments["main"][-1].weights

    @property
    def result(self) -> Weights:
        """What is kept: the last ending's weights, or those that training leaves."""
        return self.endings[-1][1] if self.endings else self.trained


def watch(
    network: PreTrainedModel,
    config: ExperimentConfig,
    sets: Sets,
    *,
    moved: bool = True,
    pad_id: int = 0,
    model: CausalModel | None = None,
    strategy: Strategy | None = None,
) -> Story:
    """Train a copy of `network`, or `model`, by the configuration's strategy, its endings included."""
    strategy = strategy or strategy_class(config.proxy_strategy)(config)
    live = model or causal_model(network, config.finetune_config, moved=moved)
    story = Story()
    gradients: list[Weights] = []
    seen: list[Ids] = []

    def parameters() -> dict[str, torch.nn.Parameter]:
        """Of the adapter or model being trained now: a phase may bring a fresh one."""
        return live.trainable

    def before_step(optimiser: Optimizer, args: Any, kwargs: Any) -> None:
        gradients.append(
            {n: torch.zeros_like(w) if w.grad is None else w.grad.clone() for n, w in parameters().items()}
        )

    class Listening(list[Event]):
        def append(self, event: Event) -> None:
            if isinstance(event, PhaseStarted):
                story.starts[event.phase] = copies(parameters())
                story.moments[event.phase], story.batches[event.phase] = [], []
            elif isinstance(event, Stepped):
                story.moments[event.phase].append(
                    Moment(
                        event.loss,
                        event.learning_rate,
                        event.gradient_norm,
                        gradients.pop(),
                        copies(parameters()),
                        event.terms,
                    )
                )
                story.batches[event.phase].append(_recognise(seen, sets))
                seen.clear()

    loop = training_loop(live, strategy, sets, Listening(), pad_id=pad_id)
    with _rows_of(live, seen), register_optimizer_step_pre_hook(before_step):
        loop.run(Uninterested())
    weights = {name: weight.data for name, weight in parameters().items()}
    trained = copies(weights)
    for ending in strategy.endings():
        for name, weight in trained.items():
            weights[name].copy_(weight)
        story.notes.append(strategy.end(ending, weights))
        story.endings.append((ending, copies(weights)))
    return story


@contextmanager
def _rows_of(model: CausalModel, seen: list[Ids]) -> Iterator[None]:
    """Keep the rows of every forward pass that is being learnt from."""

    made: list[tuple[Ready, Any]] = []
    make_ready = model.ready

    def ready(batch: Any) -> Ready | None:
        found = make_ready(batch)
        if found is not None:
            made.append((found, batch))
        return found

    def keeping(ask: Callable[..., Any]) -> Callable[..., Any]:
        def answer(asked: Any, **options: Any) -> Any:
            found = ask(asked, **options)
            if torch.is_grad_enabled() and found is not None:
                batch = next((batch for each, batch in made if each is asked), asked)
                seen.extend(batch.rows)
            return found

        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "ready", ready)
        patch.setattr(model, "passed", keeping(model.passed))
        patch.setattr(model, "layers", keeping(model.layers))
        patch.setattr(model, "log_likelihood", keeping(model.log_likelihood))
        yield


def _recognise(seen: list[Ids], sets: Sets) -> Batch:
    """Which rows of the sets these are."""
    found: Batch = {}
    for ids in seen:
        name, row = next((n, row) for n, rows in sets.items() for row in rows if row.input_ids == ids)
        if all(row is not other for other in found.get(name, ())):
            found.setdefault(name, []).append(row)
    return found


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, rtol: float, atol: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=rtol, atol=atol, msg=_named(name))


def _named(name: str) -> Callable[[str], str]:
    return lambda message: f"{name}: {message}"


def bit_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[n], expected[n]) for n in found)
