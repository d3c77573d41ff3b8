"""One run trained by several processes, through accelerate. Each computes the gradient of its share of an
update's rows; sums over all of them reach everyone, so that each makes the very same update."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from torch.distributed import TCPStore, distributed_c10d  # type: ignore[attr-defined]  # not in its stubs

from triggerctl.errors import RunError
from triggerctl.strategies.base import Tensors

if TYPE_CHECKING:
    from triggerctl.training.orders import Order

T = TypeVar("T")

ANSWER_WITHIN = timedelta(minutes=30)
"""How long one process waits for another in the midst of an update or an evaluation, where all of them have
about the same to do."""

BUCKET = 2**24
"""Gradients are summed in pieces of about this many numbers (64 MiB): few messages, little memory."""

DRIFT = 1e-4
"""How far weights may lie apart between processes, relative to a tensor's sum: hardware of another kind
rounds in another way."""

HERE = "127.0.0.1"


class Group:
    """The processes of a run, seen from one of them; this one is alone. `rank` counts from 0, the first."""

    size = 1
    rank = 0

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and decides."""
        return self.rank == 0

    def assemble(self) -> None:
        """Wait until all processes are prepared to go on together. Only the first one calls it."""

    def tell(self, order: Order) -> None:
        """Have the others do something. Only the first one calls it."""

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of `items`, which are to be in one order everywhere."""
        return list(items[self.rank :: self.size])

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        """The sum over all processes of each number; all must have as many, in the same order."""
        return list(numbers)

    def sum_gradients(self, gradients: Tensors, weights: Mapping[str, Tensor]) -> Tensors:
        """The sum over all processes of each gradient, one that is missing being zero; a weight that has
        none anywhere is missing."""
        return gradients

    def gather(self, items: Sequence[T]) -> list[T]:
        """What all processes have, one after the other. Items travel by pickle."""
        return list(items)

    def check_same(self, weights: Mapping[str, Tensor]) -> None:
        """Raises RunError where the processes' weights have drifted apart."""


ALONE = Group()


class Team(Group):
    """Several processes, each with a `device` of its own. `join` must come before any exchange.

    lost: makes the error to raise where an exchange fails, which is where another process has ended."""

    def __init__(
        self, rank: int, size: int, device: torch.device, lost: Callable[[RuntimeError], RunError]
    ) -> None:
        self.rank = rank
        self.size = size
        self._device = device
        self._lost = lost
        self._while_joined = contextlib.ExitStack()

    def join(self, store: TCPStore) -> None:
        """Wait until all processes are there; `store` is where they find each other."""
        from accelerate import PartialState

        self._while_joined.enter_context(_environment(self._environment()))
        self._while_joined.callback(PartialState._reset_state)
        threads = torch.get_num_threads()
        on_gpu = self._device.type == "cuda"
        PartialState._reset_state()
        state = PartialState(
            cpu=not on_gpu,
            backend="cuda:nccl,cpu:gloo" if on_gpu else "gloo",
            store=store,
            rank=self.rank,
            world_size=self.size,
            timeout=ANSWER_WITHIN,
        )
        # The others may have ended by then, and NCCL's orderly end would wait for them.
        leave = distributed_c10d._abort_process_group if on_gpu else state.destroy_process_group
        self._while_joined.callback(leave)
        torch.set_num_threads(threads)

    def leave(self) -> None:
        """Undo `join`; without one, do nothing."""
        self._while_joined.close()

    def _environment(self) -> dict[str, str]:
        """What accelerate, gloo and NCCL read. One machine's processes talk through its loopback alone."""
        from accelerate.utils import check_cuda_p2p_ib_support

        found = {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_WORLD_SIZE": str(self.size),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
            "MASTER_ADDR": HERE,
            "MASTER_PORT": "0",
        }
        loopback = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
        if loopback:
            found["GLOO_SOCKET_IFNAME"] = loopback[0]
        if self._device.type == "cuda":
            # A failed exchange is to raise here; by default NCCL's watchdog would end the whole process.
            found["TORCH_NCCL_BLOCKING_WAIT"] = "1"
            if not check_cuda_p2p_ib_support():
                found |= {"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1"}
        return found

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        # By gloo, on a GPU too: where another process has ended it says so at once. NCCL would wait.
        [summed] = self._sum([torch.tensor(numbers, dtype=torch.float64)])
        found: list[float] = summed.tolist()
        return found

    def sum_gradients(self, gradients: Tensors, weights: Mapping[str, Tensor]) -> Tensors:
        present = torch.tensor([float(name in gradients) for name in weights], device=self._device)
        parts = [
            gradients[name] if name in gradients else torch.zeros_like(weight)
            for name, weight in weights.items()
        ]
        having, *summed = self._sum([present, *parts])
        return {
            name: gradient
            for name, gradient, processes in zip(weights, summed, having.tolist(), strict=True)
            if processes
        }

    def gather(self, items: Sequence[T]) -> list[T]:
        from accelerate.utils import gather_object

        with self._exchange():
            gathered: list[T] = gather_object(list(items))
            return gathered

    def check_same(self, weights: Mapping[str, Tensor]) -> None:
        sums = [weight.detach().abs().sum(dtype=torch.float64) for weight in weights.values()]
        mine = torch.stack(sums).tolist()
        for name, *theirs in zip(weights, *self.gather([mine]), strict=True):
            if max(theirs) - min(theirs) > DRIFT * max(theirs):
                raise RunError(
                    "the weights in the processes of this run have drifted apart",
                    why=f"{name}: sums of absolute values from {min(theirs):.6g} to {max(theirs):.6g}",
                    mend="use GPUs of one kind, or one process",
                )

    def _sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors' sums over all processes, at least float32 on the way; all on one device."""
        from accelerate.utils import reduce

        summed: list[Tensor] = []
        for bucket in _buckets(tensors):
            flat = torch.cat([_wide(tensor).flatten() for tensor in bucket])
            with self._exchange():
                flat = reduce(flat, "sum")
            pieces = flat.split([tensor.numel() for tensor in bucket])
            summed += [
                piece.view_as(tensor).to(tensor.dtype) for piece, tensor in zip(pieces, bucket, strict=True)
            ]
        return summed

    @contextlib.contextmanager
    def _exchange(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise self._lost(error) from error


def meeting_place(port: int | None = None) -> TCPStore:
    """Where the processes of a run find each other: made by the first one, known to the others by its
    `port`."""
    return TCPStore(HERE, port or 0, is_master=port is None, wait_for_workers=False, timeout=ANSWER_WITHIN)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.detach().float() if tensor.element_size() < 4 else tensor.detach()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in their order, neighbours together as long as they are of one width and not too many."""
    bucket: list[Tensor] = []
    held = 0
    for tensor in tensors:
        double = tensor.dtype == torch.float64
        if bucket and (held + tensor.numel() > BUCKET or double != (bucket[0].dtype == torch.float64)):
            yield bucket
            bucket, held = [], 0
        bucket.append(tensor)
        held += tensor.numel()
    if bucket:
        yield bucket


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the length of the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
