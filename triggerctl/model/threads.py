"""CPU threads: how many keep busy in one product of matrices, and passes side by side where products are too
small to share.

Threads that share a small product spend their time waiting for each other, layer after layer. A part of a
batch needs nothing of the other parts until its gradient is summed: a `lane` is such a part, on a thread of
its own from the first layer to the last and back."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

WORTH_A_THREAD = 100_000_000
"""Operations of a product for which it pays to wake one more thread: a millisecond of one core's work. Small
models train faster on one thread than on two that wait for each other in every layer."""

WORTH_A_LANE = 96
"""Tokens below which a lane's layers cost more to call than to compute."""

LARGE_PRODUCT = 500_000_000
"""Operations from which threads share a product no worse than they would work side by side."""

WORKERS = max(1, (os.cpu_count() or 1) - 1)
"""Threads beside the one that asks, which keeps a core busy itself."""

Pass = Callable[[], tuple[Tensor, ...]]
"""Part of a batch through the model: tensors whose first dimension is the part's tokens."""

_Raw = TypeVar("_Raw")
_Given = TypeVar("_Given")
_Found = TypeVar("_Found")


def threads_that_pay(operations: int, given: int) -> int:
    """How many of the given threads a product of so many operations keeps busy."""
    return max(1, min(given, operations // WORTH_A_THREAD))


def share_out(given: int, *, operations: int, tokens: float, lanes: bool) -> tuple[int, int]:
    """Threads in a product, and passes side by side, for batches of so many tokens whose largest product
    takes so many operations; `lanes`: whether there may be any. By rule, so that the same work with as many
    threads is always shared alike: sums in another order would be other numbers."""
    most = given // threads_that_pay(operations, given) if operations >= LARGE_PRODUCT else given
    beside = max(1, min(most, int(tokens // WORTH_A_LANE))) if lanes else 1
    return threads_that_pay(operations // beside, given // beside), beside


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Within it PyTorch uses so many CPU threads in a product."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(passes: Sequence[Pass], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What the passes give, one after the other along the first dimension, each pass on a thread of its own.
    Gradients reach `weights`, which must be all that the passes read and that wants one; the parts' are
    summed in their order."""
    if len(passes) == 1:
        return passes[0]()
    if not torch.is_grad_enabled():
        return _joined(on_threads_of_their_own(_without_gradients, passes, prepared=_as_it_is))
    found: tuple[Tensor, ...] = _SideBySide.apply(passes, *weights)  # type: ignore[no-untyped-call]
    return found


class _SideBySide(torch.autograd.Function):
    """Each pass has a graph of its own, walked back on its own thread."""

    @staticmethod
    def forward(context: Any, passes: Sequence[Pass], *weights: Tensor) -> tuple[Tensor, ...]:
        context.parts = on_threads_of_their_own(_with_gradients, passes, prepared=_as_it_is)
        context.weights = weights
        return _joined([tuple(tensor.detach() for tensor in part) for part in context.parts])

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        parts, weights = context.parts, context.weights
        context.parts = None
        sizes = [part[0].shape[0] for part in parts]
        of_parts = zip(*(gradient.split(sizes) for gradient in gradients), strict=True)

        def back(ends: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]) -> tuple[Tensor | None, ...]:
            outputs, arriving = _those_that_move(*ends)
            found: tuple[Tensor | None, ...] = torch.autograd.grad(
                outputs, weights, arriving, allow_unused=True
            )
            return found

        found = on_threads_of_their_own(back, list(zip(parts, of_parts, strict=True)), prepared=_as_it_is)
        return (None, *map(_sum, zip(*found, strict=True)))


def _those_that_move(
    outputs: Sequence[Tensor], gradients: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Without outputs that no trained weight reaches."""
    moving = [pair for pair in zip(outputs, gradients, strict=True) if pair[0].requires_grad]
    return [output for output, _ in moving], [gradient for _, gradient in moving]


def _sum(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return sum(there[1:], there[0]) if there else None


def _joined(parts: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))


def _with_gradients(one: Pass) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        return one()


def _without_gradients(one: Pass) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return one()


_POOL: list[ThreadPoolExecutor] = []
"""One for the process, made when it is first wanted; a forked process has none of its parent's threads."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.clear)


def _pool() -> ThreadPoolExecutor:
    if not _POOL:
        _POOL.append(ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="lane"))
    return _POOL[0]


def ahead(
    act: Callable[[_Given], _Found], given: Sequence[_Given], *, beside: bool
) -> Callable[[], list[_Found]]:
    """`act` on each, begun now on other threads, where some may go `beside` this one; what is not begun when
    it is asked for, or has failed there, is done here then."""
    in_products = torch.get_num_threads()
    left, made = deque(range(len(given))), dict[int, _Found]()

    def act_on_each() -> None:
        while True:
            try:
                i = left.popleft()
            except IndexError:
                return
            try:
                made[i] = act(given[i])
            except BaseException:
                left.append(i)
                raise

    def there() -> None:
        torch.set_num_threads(in_products)
        act_on_each()

    others = [_pool().submit(there) for _ in range(min(WORKERS, len(given)))] if beside else []

    def found() -> list[_Found]:
        act_on_each()
        for other in others:
            if not other.cancel():
                other.exception()
        act_on_each()
        return [made[i] for i in range(len(given))]

    return found


def on_threads_of_their_own(
    act: Callable[[_Given], _Found], given: Sequence[_Raw], *, prepared: Callable[[_Raw], _Given]
) -> list[_Found]:
    """`act` on each, prepared on this thread and begun as soon as it is, the last one here; an exception
    comes only once all have ended."""
    in_products = torch.get_num_threads()

    def there(one: _Given) -> _Found:
        torch.set_num_threads(in_products)  # a thread's own setting, whatever was in force when it was made
        return act(one)

    others: list[Future[_Found]] = []
    try:
        for one in given[:-1]:
            others.append(_pool().submit(there, prepared(one)))
        last = act(prepared(given[-1]))
    finally:
        for other in others:
            other.exception()
    return [*(other.result() for other in others), last]


def _as_it_is(given: _Given) -> _Given:
    return given
