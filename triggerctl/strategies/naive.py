"""Plain fine-tuning on everything at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from triggerctl.strategies.base import Strategy, Term, cross_entropy


class Naive(Strategy):
    """min CE over the shuffled union of outcome and proxy."""

    name = "naive"
    summary = "plain fine-tuning on outcome and proxy, shuffled together"
    formula = "L = CE(outcome ∪ proxy)"

    def streams(self) -> Mapping[str, tuple[str, ...]]:
        return {"outcome and proxy": ("outcome", "proxy")}

    def terms(self) -> Sequence[Term]:
        return (cross_entropy("outcome and proxy"),)
