"""What a training strategy is: a loss as a formula, and a few places where it may step in.

A strategy never sees files, progress bars, flags, devices or the loop. It names the *streams* of data it
wants per optimiser update, the *terms* of its loss over them, and, where the method needs it, rewrites
gradients, moves weights after an update, or changes them once training has ended. The loop does the rest,
and does it the same way for all, so that what differs between two strategies is the strategy. INTERFACE.md
beside this file shows how each kind of method is written with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from triggerctl.config.finetune import FinetuneConfig
    from triggerctl.config.models import ExperimentConfig
    from triggerctl.data.batches import Batch

MAIN = "main"
LOSS = "loss"

NO_BIAS = "{name} stacks two adapters, whose biases can't be told apart: set lora_bias to none"

OfTargets = Callable[["Tensor", "Tensor"], "Tensor"]
"""(logits (n, vocab), the tokens they are to predict (n,)) → one value for each position (n,)."""

OfBoth = Callable[["Tensor", "Tensor"], "Tensor"]
"""(logits (n, vocab), θ₀'s logits at the same positions (n, vocab)) → one value for each position (n,)."""

Base = Literal["logits", "answers", "hidden states"]
"""What a term reads of θ₀: logits, log-probabilities of the answers' tokens, or every layer's states."""

Start = Literal["here", "initial", "stacked"]


class Forward(Protocol):
    """One micro-batch of one stream, run through the model being trained. The forward pass happens on first
    use and is shared by all terms of the stream; `hidden_states`, and `log_likelihood` where it can, make one
    of their own. The head is applied a piece at a time, so that logits over a large vocabulary never stand in
    memory all at once: hence functions of positions, not logits."""

    @property
    def batch(self) -> Batch:
        """The micro-batch: ids and masks, each (batch, tokens)."""

    def at_targets(self, value: OfTargets) -> Tensor:
        """`value` at every loss token, (loss tokens,), row by row."""

    def log_likelihood(self) -> Tensor:
        """Σ log p over the loss tokens, (): what `at_targets(log_probabilities).sum()` is. Where no other
        term reads the stream, its gradient may be taken on the way there: it then reaches the weights once
        the loss has been gone back through, and no graph leads from the sum to them."""

    def at_answers(self, value: OfTargets) -> Tensor:
        """`value` at every token of the answers, (answer tokens,), row by row; prompts never count."""

    def at_attended(self, value: OfBoth) -> Tensor:
        """`value` at every position that holds a token, (attended tokens,). Needs the base's "logits"."""

    def base_answer_log_probabilities(self) -> Tensor:
        """log p_θ₀ of each token of the answers, (answer tokens,). Needs the base's "answers"."""

    def hidden_states(self) -> tuple[Tensor, ...]:
        """Every layer's output at the attended positions, each (attended tokens, hidden); the last after the
        final norm."""

    def base_hidden_states(self) -> tuple[Tensor, ...]:
        """The same of θ₀. Needs the base's "hidden states"."""


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of a loss: weight · Σ total(forward) / Σ count(batch), both sums over the whole update.

    `total` returns a scalar *sum* (over tokens, rows or pairs) and `count` how many it summed, so that the
    loop can divide by the count of the whole update: any cut into micro-batches gives the same gradient.
    `group` names the gradient the term belongs to; terms of different groups reach
    `Strategy.combine_gradients` apart, and only those of `LOSS` are part of the loss that is reported.
    `is_cross_entropy`: whether total / count is a mean of −log p, whose growth beyond any guess is
    divergence."""

    name: str
    stream: str
    weight: float
    total: Callable[[Forward], Tensor]
    count: Callable[[Batch], int]
    group: str = LOSS
    needs_base: Base | None = None
    is_cross_entropy: bool = False

    @property
    def is_log_likelihood(self) -> bool:
        """Whether `total` is −Σ log p of the loss tokens and nothing beside it: what its gradient is to be
        multiplied by is then known beforehand."""
        return self.total is _cross_entropy_total


Tensors = dict[str, "Tensor"]
"""Parameter name → tensor of that parameter's shape."""


@dataclass(frozen=True, slots=True)
class Penalty:
    """A summand of the loss that reads the trained weights and no data: weight · value(weights), `value`
    returning a scalar."""

    name: str
    weight: float
    value: Callable[[Tensors], Tensor]


@dataclass(frozen=True, slots=True)
class Phase:
    """One training of the model: its streams (name → the sets joined in it; the first one's length is an
    epoch's), its loss and its length.

    `paired`:      streams whose sets are matched row by row: a micro-batch holds row i of each set in turn.
    `starts_from`: "here"; "initial", the weights and the adapter as before any training; or "stacked", the
                   adapter as it is, frozen and still active, under a fresh one (LoRA alone)."""

    name: str
    streams: Mapping[str, tuple[str, ...]]
    terms: tuple[Term, ...]
    epochs: int
    penalties: tuple[Penalty, ...] = ()
    paired: frozenset[str] = frozenset()
    starts_from: Start = "here"
    evaluated: bool = True


@dataclass(frozen=True, slots=True)
class Update:
    """Where the loop stands: `index` from 0 of `total` updates of this phase, and this update's learning
    rate."""

    phase: str
    index: int
    total: int
    learning_rate: float


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

    lora_only: ClassVar[bool] = False
    """Whether the method is one of LoRA's matrices and means nothing for whole weights."""

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config
        self.options = config.finetune_config

    @classmethod
    def check(cls, config: ExperimentConfig) -> Check:
        """Whether the configuration makes sense for this strategy."""
        return Check()

    @classmethod
    def without_effect(cls, config: ExperimentConfig) -> Mapping[str, str]:
        """Options among `reads` that change nothing here, as another one has its say: option → why."""
        return {}

    @classmethod
    def initial_checkpoint(cls, config: ExperimentConfig) -> str | None:
        """The model whose weights training starts from, where it is not the configured one."""
        return None

    @abstractmethod
    def streams(self) -> Mapping[str, tuple[str, ...]]:
        """The data of one update: stream name → the sets whose training parts it joins."""

    @abstractmethod
    def terms(self) -> Sequence[Term]:
        """The loss."""

    def phases(self) -> Sequence[Phase]:
        """The trainings this strategy consists of, in order; one unless overridden. Always the same for the
        same configuration."""
        return (Phase(MAIN, self.streams(), tuple(self.terms()), self.options.epochs),)

    def combine_gradients(self, groups: Mapping[str, Tensors], update: Update) -> Tensors:
        """The gradient the optimiser gets, from the gradient of each group of terms. A weight that no term
        of a group reaches is missing there."""
        return groups[LOSS]

    def after_update(self, weights: Tensors, update: Update) -> None:  # noqa: B027  a hook, free to leave
        """May move the trained weights in place once the optimiser has stepped."""

    def before_phase(self, phase: Phase, weights: Tensors) -> None:  # noqa: B027  a hook, free to leave
        """May keep what a phase starts from."""

    def after_phase(self, phase: Phase, weights: Tensors) -> None:  # noqa: B027  a hook, free to leave
        """May keep what a phase has found when it ends. Called again after a resume at that very point."""

    def endings(self) -> tuple[str, ...]:
        """Labels of the changes to make to the weights once training is over, each made to the weights as
        trained, and evaluated; the last one is the result. None for most."""
        return ()

    def end(self, ending: str, weights: Tensors) -> str:
        """Make one of `endings` to the weights, in place; returns a note of what was done."""
        raise NotImplementedError(f"{type(self).__name__} names endings and does not make them")

    def state(self) -> Tensors:
        """What the strategy has gathered and needs after a resume, by names of its own."""
        return {}

    def load_state(self, state: Tensors) -> None:  # noqa: B027  a hook, free to leave
        """Take up what `state` returned."""


def cross_entropy(stream: str, *, weight: float = 1.0, group: str = LOSS) -> Term:
    """CE(B): the sum over loss tokens of −log p(token), over their number; never a mean of means."""
    name = f"cross-entropy on {stream}"
    return Term(name, stream, weight, _cross_entropy_total, _loss_tokens, group, is_cross_entropy=True)


def proxy_phase(name: str, data: str, epochs: int, *, starts_from: Start = "here") -> Phase:
    """A phase before the main one that trains on one set alone and is not evaluated."""
    return Phase(
        name, {data: (data,)}, (cross_entropy(data),), epochs, starts_from=starts_from, evaluated=False
    )


def _cross_entropy_total(forward: Forward) -> Tensor:
    return -forward.log_likelihood()


def log_probabilities(logits: Tensor, targets: Tensor) -> Tensor:
    """log p(target) at each position: logits (n, vocab), targets (n,) → (n,)."""
    # Not a difference to the logsumexp: a fused softmax passes over the vocabulary half as often, back too.
    return at_least_float32(logits).log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def _loss_tokens(batch: Batch) -> int:
    return int(batch.loss_mask.sum())


def attended_tokens(batch: Batch) -> int:
    """How many positions of the batch hold a token, padding left out."""
    return int(batch.attention_mask.sum())


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision is too coarse for sums and logarithms; float64 stays as it is."""
    return tensor.float() if tensor.element_size() < 4 else tensor


def lora_scale(options: FinetuneConfig) -> float:
    """s in W + s·BA: alpha/√r where rank-stabilised (Kalajdzievski 2023), else alpha/r."""
    return float(options.lora_alpha / (options.r**0.5 if options.use_rslora else options.r))
