"""How findings name runs, seeds and values in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def parts(values: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{value} ({listed(list(dict.fromkeys(labels)))})" for value, labels in values.items())


def listed(labels: Sequence[str], at_most: int = 4, joint: str = ", ") -> str:
    rest = len(labels) - at_most
    return joint.join(labels[:at_most]) + (f" and {rest} more" if rest > 0 else "")


def named_seeds(seeds: Iterable[object]) -> str:
    words = [str(seed) for seed in seeds]
    return f"seed {words[0]}" if len(words) == 1 else f"seeds {', '.join(words[:-1])} and {words[-1]}"
