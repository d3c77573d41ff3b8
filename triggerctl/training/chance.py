"""A seed of its own for each use of chance, so that switching one thing never moves another."""

from __future__ import annotations

import hashlib


def named_seed(seed: int, name: str) -> int:
    """The seed of the generator called `name` in a run with that seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "big")
