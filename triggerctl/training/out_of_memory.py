"""What happens when memory runs out: once, the run goes on from its last checkpoint with half as many rows at
a time, twice as often. The update is the same; only the order of sums differs."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import torch
from accelerate.utils.memory import should_reduce_batch_size

from triggerctl.errors import RunError


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Memory ran out. `why`: the first line of what was said; `micro_batch`: units at once until then;
    `results`: the name of the results folder that the run writes."""

    why: str
    micro_batch: int
    results: str

    @property
    def next_micro_batch(self) -> int:
        return self.micro_batch // 2

    @property
    def said(self) -> str:
        """For the user, when the run goes on."""
        return (
            f"out of memory: goes on with {self.next_micro_batch} rows at a time instead of "
            f"{self.micro_batch}; the updates are the same ({self.why})"
        )


class OutOfMemoryRunError(RunError):
    """Memory ran out, and the run may go on with less at a time."""

    def __init__(self, exhausted: Exhausted) -> None:
        self.exhausted = exhausted
        super().__init__("out of memory", why=exhausted.why)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device's memory, or the machine's, does not suffice."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(error)


def out_of_memory(exhausted: Exhausted) -> RunError:
    """The error for a run that can't go on."""
    return RunError(
        "out of memory",
        why=f"{exhausted.why}; with {exhausted.micro_batch} rows at a time",
        mend="a smaller max_seq_length or model, use_gradient_checkpointing or load_in_4bit",
    )


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
