"""What the first process of a run tells the others that train it too. They know nothing else: when to
evaluate, to go on or to end is for the first one to decide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from triggerctl.strategies.base import Tensors
from triggerctl.training.begun import Begun
from triggerctl.training.plan import RunPlan

LOST_ANOTHER = 75
"""The exit code of a follower that ends because another process has ended."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a follower is to help with, told once. `port`: where the processes find each other; `said`: the
    file that takes its standard output and error; `cache`: whether what was computed may be taken from the
    cache."""

    plan: RunPlan
    begun: Begun
    cache: bool
    device: str
    rank: int
    size: int
    threads: int
    port: int
    said: Path


@dataclass(frozen=True, slots=True)
class GoOn:
    """Train until the loop asks again whether to stop, or make the next ending."""


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Take part in an evaluation."""

    with_twins: bool


@dataclass(frozen=True, slots=True)
class SkipTo:
    """Leave out the phases before this one, the plane they are to find being known."""

    phase: int
    plane: Tensors


Order = GoOn | Evaluate | SkipTo


def ready(rank: int) -> str:
    """The store's key by which a follower says that it is prepared."""
    return f"ready/{rank}"
