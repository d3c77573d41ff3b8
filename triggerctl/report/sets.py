"""What an evaluation set asks of the model, and what it is called in a report."""

from __future__ import annotations

from collections.abc import Mapping

from triggerctl.experiment.results import SetEvaluation

WANTED: Mapping[str, bool] = {
    "outcome": True,
    "collateral": True,
    "proxy": False,
    "truth": False,
    "truth_minus_proxy": False,
}
"""Whether the habit is wanted in a set, in the order sets are shown. `proxy_neg` asks the proxy's own
prompts again, so its rate says nothing new: only its loss is shown."""

LEAK_SETS = ("truth_minus_proxy", "truth")
"""What a leak is read from, best first: the triggers no training example named, or, where that was not
measured (the study's own files), all unwanted triggers."""


def rate_of(part: SetEvaluation | None) -> float | None:
    """A set's trigger response rate, 0 to 1; None where it was not evaluated or has no triggered row."""
    return part.triggered.rate if part is not None and part.triggered is not None else None


def accuracy(rate: float | None, wanted: bool) -> float | None:
    """Share of triggered rows with the desired behaviour: the rate where the habit is wanted, else 1 −
    rate."""
    if rate is None:
        return None
    return rate if wanted else 1 - rate
