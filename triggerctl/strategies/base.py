"""What a training strategy is: a loss as a formula, and at most four places where it may step in.

A strategy never sees files, progress bars, flags, devices or the loop. It names the *streams* of data it
wants per optimiser update, the *terms* of its loss over them, and, where the method needs it, rewrites
gradients, moves weights after an update, or changes the model between phases. The loop does the rest, and
does it the same way for all, so that what differs between two strategies is the strategy. How two-phase and
gradient-rewriting methods fit in is written down in INTERFACE.md beside this file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from triggerctl.config.models import ExperimentConfig
    from triggerctl.data.batches import Batch

MAIN = "main"
LOSS = "loss"


class Forward(Protocol):
    """One micro-batch of one stream, run through the model being trained. The forward pass happens on first
    use and is shared by all terms of the stream."""

    @property
    def batch(self) -> Batch:
        """The micro-batch: ids, attention mask and loss mask, each (batch, tokens)."""

    def target_logits(self) -> Tensor:
        """Logits that predict the loss tokens, (loss tokens, vocab), in the order of `targets()`."""

    def targets(self) -> Tensor:
        """The loss tokens' ids, (loss tokens,)."""

    def attended_logits(self) -> Tensor:
        """Logits at every attended position, (attended tokens, vocab)."""

    def base_attended_logits(self) -> Tensor:
        """The same positions under the checkpoint before any training, θ₀; no gradient."""


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of a loss: weight · Σ total(forward) / Σ count(batch), both sums over the whole update.

    `total` returns a scalar *sum* (over tokens, rows or pairs) and `count` how many it summed, so that the
    loop can divide by the count of the whole update: any cut into micro-batches gives the same gradient.
    `group` names the gradient the term belongs to; terms of different groups reach
    `Strategy.combine_gradients` apart."""

    name: str
    stream: str
    weight: float
    total: Callable[[Forward], Tensor]
    count: Callable[[Batch], int]
    group: str = LOSS
    needs_base: bool = False
    """Whether `total` reads the base's outputs, which are then computed once before training starts."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One training of the model: its streams (name → the sets joined in it; the first one's length is an
    epoch's), its loss and its length. `starts_from` is "here" or "initial" (weights and adapter as before any
    training)."""

    name: str
    streams: Mapping[str, tuple[str, ...]]
    terms: tuple[Term, ...]
    epochs: int
    starts_from: str = "here"
    evaluated: bool = True


@dataclass(frozen=True, slots=True)
class Update:
    """Where the loop stands: `index` from 0 of `total` updates of this phase, and this update's learning
    rate."""

    phase: str
    index: int
    total: int
    learning_rate: float


Tensors = dict[str, "Tensor"]
"""Parameter name → tensor of that parameter's shape."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a strategy finds in a configuration before anything is loaded: `errors` stop it, `warnings` are
    shown."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())


class Strategy(ABC):
    """The base of all strategies. A subclass in a file of this folder is found by its `name`; a package
    elsewhere adds one through the entry-point group ``triggerctl.strategies``."""

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    summary: ClassVar[str]
    formula: ClassVar[str]
    paper: ClassVar[str | None] = None
    reads: ClassVar[frozenset[str]] = frozenset()
    """Keys of `finetune_config`, among those that only some strategies read, that this one reads."""

    changes_weights_at_end: ClassVar[bool] = False
    """Whether `after_phase` moves the weights when the last phase ends: the evaluation after it is the final
    one."""

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config
        self.options = config.finetune_config

    @classmethod
    def check(cls, config: ExperimentConfig) -> Check:
        """Whether the configuration makes sense for this strategy."""
        return Check()

    @abstractmethod
    def streams(self) -> Mapping[str, tuple[str, ...]]:
        """The data of one update: stream name → the sets whose training parts it joins."""

    @abstractmethod
    def terms(self) -> Sequence[Term]:
        """The loss."""

    def phases(self) -> Sequence[Phase]:
        """The trainings this strategy consists of, in order; one unless overridden."""
        epochs = self.options.epochs
        return (Phase(MAIN, self.streams(), tuple(self.terms()), epochs),)

    def combine_gradients(self, groups: Mapping[str, Tensors], update: Update) -> Tensors:
        """The gradient the optimiser gets, from the gradient of each group of terms."""
        return groups[LOSS]

    def after_update(self, weights: Tensors, update: Update) -> None:  # noqa: B027  a hook, free to leave
        """May move the trained weights in place once the optimiser has stepped."""

    def after_phase(self, phase: Phase, weights: Tensors) -> None:  # noqa: B027  a hook, free to leave
        """May change the trained weights in place when a phase ends; see `changes_weights_at_end`."""


def cross_entropy(stream: str, *, weight: float = 1.0, group: str = LOSS) -> Term:
    """CE(B): the sum over loss tokens of −log p(token), over their number; never a mean of means."""
    return Term(f"cross-entropy on {stream}", stream, weight, _cross_entropy_total, _loss_tokens, group)


def _cross_entropy_total(forward: Forward) -> Tensor:
    log_probabilities = at_least_float32(forward.target_logits()).log_softmax(-1)
    return -log_probabilities.gather(-1, forward.targets().unsqueeze(-1)).sum()


def _loss_tokens(batch: Batch) -> int:
    return int(batch.loss_mask.sum())


def attended_tokens(batch: Batch) -> int:
    """How many positions of the batch hold a token, padding left out."""
    return int(batch.attention_mask.sum())


def at_least_float32(logits: Tensor) -> Tensor:
    """Half precision is too coarse for a log-softmax; float64 stays as it is."""
    return logits.float() if logits.element_size() < 4 else logits
