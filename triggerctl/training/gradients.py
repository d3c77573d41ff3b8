"""The gradient of one update: Σ over terms of weight · Σ total / Σ count, both sums over all of the update's
rows, whatever the micro-batches. Exact gradient accumulation, for every strategy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from triggerctl.data.batches import Batch, collate
from triggerctl.data.encoding import Encoded
from triggerctl.errors import RunError
from triggerctl.model.causal import CausalModel, Ready
from triggerctl.model.positions import at_once
from triggerctl.strategies.base import LOSS, Base, Penalty, Phase, Tensors, Term
from triggerctl.training.forward import ModelForward
from triggerctl.training.parallel import ALONE, Group
from triggerctl.training.reference import BaseReference
from triggerctl.training.shared import Shared
from triggerctl.training.streams import Stream, Units, make_stream, micro_batches

LATER_TOKENS = {"cpu": 512, "cuda": 8192, "mps": 2048}
"""Tokens of a micro-batch, with what padding the model needs, of any stream but an update's first, by device:
enough to keep the device busy, few enough that a strategy of several streams needs hardly more memory than
one of a single stream."""

AHEAD, AHEAD_TOKENS = 64, 16_384
"""Updates whose rows are made ready together, at most, and tokens that are enough for it: what Python has
just done it does again in half the time, and a small model's update is long enough for caches to forget."""


@dataclass(frozen=True, slots=True)
class PhaseData:
    """What a phase needs beside the model: its streams, and θ₀'s outputs on those that ask for them."""

    streams: Mapping[str, Stream]
    references: Mapping[str, BaseReference]


def phase_data(
    phase: Phase,
    sets: Mapping[str, Sequence[Encoded]],
    model: CausalModel,
    *,
    pad_id: int,
    progress: Callable[[int, int], None],
    shared: Shared | None = None,
) -> PhaseData:
    """A phase's streams from the rows of each set, and what its terms read of θ₀, computed or taken from
    `shared` now where it must be: call it before training starts."""
    streams = {
        stream: make_stream([sets[name] for name in names], paired=stream in phase.paired)
        for stream, names in phase.streams.items()
    }
    references = {
        stream: BaseReference(model, rows.rows, needs=needs, pad_id=pad_id, shared=shared, progress=progress)
        for stream, rows in streams.items()
        if (needs := _base_needs(phase, stream))
    }
    return PhaseData(streams, references)


def _base_needs(phase: Phase, stream: str) -> frozenset[Base]:
    terms = (term for term in phase.terms if term.stream == stream and term.weight != 0)
    return frozenset(term.needs_base for term in terms if term.needs_base is not None)


@dataclass(frozen=True, slots=True)
class UpdateGradients:
    """What one update's rows gave. `groups`: the gradient of each group of terms; `terms`: each term before
    weighting; `loss`: the weighted sum of those of the group LOSS, None where all of them sit out; `trained`
    and `padded`: tokens of all rows, without and with what pads them or fills up."""

    groups: dict[str, Tensors]
    terms: dict[str, float]
    loss: float | None
    trained: int
    padded: int


@dataclass(frozen=True, slots=True)
class _Portion:
    """What goes through the model for some terms of an update, micro-batch after micro-batch. counts: of each
    term, over all processes' rows."""

    group: str
    stream: str
    terms: Sequence[Term]
    rows: Sequence[Sequence[int]]
    batches: Sequence[Batch]
    ready: Sequence[Ready | None]
    counts: Mapping[str, int]

    @property
    def tokens(self) -> int:
        """Real ones of all its micro-batches."""
        return sum(sum(batch.lengths) for batch in self.batches)


class GradientPass:
    """Computes gradients of a phase's terms with respect to `weights`, at most `limit` units at a time. Of an
    update's rows each process of `group` runs its share; counts, losses and gradients are of all."""

    def __init__(
        self,
        model: CausalModel,
        phase: Phase,
        data: PhaseData,
        weights: Mapping[str, nn.Parameter],
        *,
        limit: int,
        pad_id: int,
        group: Group = ALONE,
    ) -> None:
        self._model = model
        self._phase = phase
        self._data = data
        self._weights = weights
        self._limit = limit
        self._pad_id = pad_id
        self._group = group
        self._tokens = [0, 0]
        self._ready: deque[tuple[Units, list[_Portion]]] = deque()

    def of(self, units: Units, following: Sequence[Units] = ()) -> UpdateGradients:
        """The gradients of one update; those that stand in the weights are overwritten. `following`: updates
        that come next, of which some are made ready with it.

        Raises RunError where a term has nothing to count."""
        portions = self._made_ready([units, *following])
        self._tokens = [0, 0]
        groups: dict[str, Tensors] = {}
        values: dict[str, Tensor] = {}
        penalties = [penalty for penalty in self._phase.penalties if penalty.weight != 0]
        for group in dict.fromkeys([LOSS, *(term.group for term in self._phase.terms)]):
            self._clear()
            for portion in portions:
                if portion.group == group:
                    values |= self._terms(portion)
            if group == LOSS:
                values |= self._penalties(penalties)
            groups[group] = {n: w.grad for n, w in self._weights.items() if w.grad is not None}
        self._clear()
        *found, trained, padded = self._group.sum_numbers([*_read(values), *self._tokens])
        numbers = dict(zip(values, found, strict=True))
        groups = {
            name: self._group.sum_gradients(gradients, self._weights) for name, gradients in groups.items()
        }
        summed = {t.name: t.weight for t in self._phase.terms if t.group == LOSS and t.name in numbers}
        summed |= {penalty.name: penalty.weight for penalty in penalties}
        loss = sum(weight * numbers[name] for name, weight in summed.items()) if summed else None
        return UpdateGradients(groups, numbers, loss, int(trained), int(padded))

    def _clear(self) -> None:
        for weight in self._weights.values():
            weight.grad = None

    def _made_ready(self, plan: Sequence[Units]) -> list[_Portion]:
        """The first update's portions."""
        if not self._ready or self._ready[0][0] is not plan[0]:
            self._ready.clear()
            tokens = 0
            for units in plan[:AHEAD]:
                self._ready.append((units, self._portions(units)))
                tokens += sum(portion.tokens for portion in self._ready[-1][1])
                if tokens >= AHEAD_TOKENS:
                    break
        return self._ready.popleft()[1]

    def _portions(self, units: Units) -> list[_Portion]:
        """An update's rows as they go through the model."""
        portions: list[_Portion] = []
        for group in dict.fromkeys([LOSS, *(term.group for term in self._phase.terms)]):
            for stream, chosen in units.items():
                terms = [
                    t for t in self._phase.terms if t.stream == stream and t.group == group and t.weight != 0
                ]
                if terms:
                    portions.append(self._portion(group, stream, terms, chosen, first=not portions))
        return portions

    def _portion(
        self, group: str, stream: str, terms: Sequence[Term], units: Sequence[int], *, first: bool
    ) -> _Portion:
        rows = self._data.streams[stream]
        lengths = {unit: rows.length(unit) * rows.width for unit in units}
        device = self._model.device
        # The gradients of the streams before stand in memory beside what this one's forward pass keeps.
        tokens = None if first else LATER_TOKENS[device.type]
        mine = self._group.share(sorted(units, key=lambda unit: (-lengths[unit], unit)))
        cuts = micro_batches(
            mine,
            lengths,
            self._limit,
            overhead=_overhead(device),
            tokens=tokens,
            padded=not self._model.packs,
        )
        indices = [[row for unit in cut for row in rows.indices(unit)] for cut in cuts]
        batches = [collate([rows.rows[i] for i in each], self._pad_id) for each in indices]
        counted = [*batches, *self._elsewhere(rows, set(units).difference(mine))]
        counts = {term.name: sum(term.count(batch) for batch in counted) for term in terms}
        alone = len(terms) == 1 and terms[0].is_log_likelihood
        ready = [self._model.ready(batch) if alone else None for batch in batches]
        return _Portion(group, stream, terms, indices, batches, ready, counts)

    def _terms(self, portion: _Portion) -> dict[str, Tensor]:
        terms, counts = portion.terms, portion.counts
        empty = [name for name, count in counts.items() if count == 0]
        if empty:
            raise RunError(
                f"a batch of {portion.stream} has nothing to learn from",
                why=f"no token counts for {', '.join(empty)}: answers are empty or cut off whole",
                mend="raise max_seq_length, or set loss_on to all",
            )
        sums: dict[str, Tensor] = {}
        for rows, batch, ready in zip(portion.rows, portion.batches, portion.ready, strict=True):
            filler_before = self._model.filler
            found = None if ready is None else self._log_likelihood(portion, ready)
            for term, total in zip(terms, found or self._totals(portion, rows, batch), strict=True):
                sums[term.name] = sums[term.name] + total if term.name in sums else total
            real = sum(batch.lengths)
            self._tokens[0] += real
            filled = real + self._model.filler - filler_before
            self._tokens[1] += filled if self._model.packs else batch.input_ids.numel()
        nothing = torch.zeros((), device=self._model.device)  # a process may have no row of this stream
        return {term.name: sums.get(term.name, nothing) / counts[term.name] for term in terms}

    def _log_likelihood(self, portion: _Portion, ready: Ready) -> list[Tensor] | None:
        """`_totals` where the one term is −Σ log p: no graph is needed. None where the model can't."""
        [term] = portion.terms
        times = -term.weight / portion.counts[term.name]
        known = self._model.log_likelihood(ready, at_once=at_once(self._model), times=times)
        if known is None:
            return None
        known.hand_over()
        return [-known.value.detach()]

    def _totals(self, portion: _Portion, rows: Sequence[int], batch: Batch) -> list[Tensor]:
        """Of each term over a micro-batch; their gradients are added to those that stand in the weights."""
        forward = ModelForward(
            self._model,
            batch.to(self._model.device),
            rows,
            self._data.references.get(portion.stream),
            for_one_term=len(portion.terms) == 1,
        )
        totals = [term.total(forward) for term in portion.terms]
        weighted = [
            total * (term.weight / portion.counts[term.name])
            for term, total in zip(portion.terms, totals, strict=True)
        ]
        (weighted[0] if len(weighted) == 1 else torch.stack(weighted).sum()).backward()
        forward.give_back()
        return [total.detach() for total in totals]

    def _elsewhere(self, rows: Stream, units: Collection[int]) -> list[Batch]:
        """What other processes train on of this update: to be counted, and nothing more."""
        others = [rows.rows[row] for unit in sorted(units) for row in rows.indices(unit)]
        return [collate(others, self._pad_id)] if others else []

    def _penalties(self, penalties: Sequence[Penalty]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for penalty in penalties:
            if not self._group.is_first:
                # It is of the weights, which all processes have: it counts once.
                found[penalty.name] = torch.zeros((), device=self._model.device)
                continue
            value = penalty.value(dict(self._weights))
            (penalty.weight * value).backward()
            found[penalty.name] = value.detach()
        return found


def _read(values: Mapping[str, Tensor]) -> list[float]:
    """All numbers in one transfer: each is a wait for the device."""
    if not values:
        return []
    wide = [value if value.device.type == "mps" else value.double() for value in values.values()]
    numbers: list[float] = torch.stack(wide).tolist()
    return numbers


def _overhead(device: torch.device) -> int:
    """What a further forward and backward pass costs beside its tokens, as tokens: kernels to launch, weights
    to read."""
    return 32 if device.type == "cpu" else 1024
