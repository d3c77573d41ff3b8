"""The final rates of stored results, for the tables of `status` and `sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.text import Text

from triggerctl import console
from triggerctl.errors import TriggerctlError
from triggerctl.experiment.stored_results import StoredResults, read_results

RATES = ("outcome", "proxy", "collateral", "truth", "truth_minus_proxy")
"""The sets that fit a line beside a run's name."""

HEADS = {name: name for name in RATES} | {"truth_minus_proxy": "truth −\nproxy"}
"""Their columns' titles."""

_STYLES = {
    "done": "green",
    "starting": "cyan",
    "running": "cyan",
    "failed": "red",
    "interrupted": "yellow",
    "stale": "yellow",
    "pending": "dim",
    "skipped": "dim",
    "kept": "dim",
    "same": "dim",
    "busy": "cyan",
    "not reached": "dim",
}


def state_text(word: str) -> Text:
    """The state of a run, in its colour."""
    return Text(word, style=_STYLES.get(word, ""))


def stored_rates(stored: StoredResults) -> dict[str, float | None]:
    """Set → trigger response rate at the final evaluation, ours or the study's; None where it has none."""
    if stored.ours is None:
        return {name: series.rates[-1] for name, series in stored.sets.items() if series.rates}
    return {
        name: evaluated.triggered.rate if evaluated.triggered is not None else None
        for name, evaluated in stored.ours.final.sets.items()
    }


def final_rates(results: Path | None) -> dict[str, float | None]:
    """The same for a results folder; nothing where there is none or it can't be read."""
    if results is None:
        return {}
    try:
        return stored_rates(read_results(results))
    except TriggerctlError:
        return {}


def cells(rates: Mapping[str, float | None]) -> dict[str, str | Text]:
    """One cell for each of `RATES`."""
    return {name: console.rate(rates.get(name)) for name in RATES}
