"""The few figures of a results.json that `status` shows, read without making sense of the rest of it.

Everything the study had stands before our own part of the file, and our part begins with what names the run.
So of a large file only the beginning is parsed, and its last bytes tell whether it was cut short. What is
damaged beyond that is found by `read_results`, which reads all and checks all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from pydantic_core import from_json

from triggerctl import disk
from triggerctl.experiment.atomic import disk_errors
from triggerctl.experiment.results import STUDY_NAMES
from triggerctl.experiment.stored_results import check_schema, unreadable

_HEAD_BYTES = (16384, 131072)
"""How much is looked at first, and then where the run trained for very many epochs."""

_OURS = b'"triggerctl"'
_NAMING_BYTES = 1024
_NAMING = ("schema_version", "hash", "strategy", "seed")
"""What our part begins with; it is sure to be whole where something follows it."""

_NUMBERS = frozenset({float, int, NoneType})
_SETS = tuple(
    (name, f"{prefix}_losses", f"{prefix}_trigger_response_percent") for name, prefix in STUDY_NAMES.items()
)


@dataclass(frozen=True, slots=True)
class BriefResults:
    """`loss`: the mean training loss of the last epoch. `rates`: set → trigger response rate at the final
    evaluation, None where it has none. `hash` is None for the study's; `config` is the stored one."""

    strategy: str
    seed: int
    loss: float | None
    rates: Mapping[str, float | None]
    hash: str | None
    config: Mapping[str, Any]

    def key(self) -> str:
        """What tells this run from others in its folder: its hash; for the study's, a key of what was asked
        for. Finished results with one key are one run, of which the newest count."""
        if self.hash is not None:
            return self.hash
        # Loads every model of the configuration, for the few folders that hold results of the study twice.
        from triggerctl.experiment.fingerprint import published_key

        return published_key(self.config)


def read_brief(file: str, *, rates: Mapping[str, float | None] | None = None) -> BriefResults | None:
    """Read a results.json, ours or the study's; None where there is no such file.

    rates: those of its final evaluation where they are known already, as from state.json; of one of ours that
    is large only the beginning is then read.
    Raises InputError as `read_results`, naming the file.
    """
    try:
        content, document, end = _read(file, all_of_it=rates is None)
    except FileNotFoundError:
        return None
    except OSError:
        with disk_errors(Path(file), "read"):
            raise
    try:
        if document is None:
            document = from_json(content)
        elif not end.rstrip().endswith(b"}"):
            raise ValueError("it is cut short")
        return _brief(document, rates)
    except (ValueError, OverflowError) as error:  # an OverflowError: a whole number that is no float
        raise unreadable(Path(file), str(error)) from error


def _read(file: str, *, all_of_it: bool) -> tuple[bytes, dict[str, Any] | None, bytes]:
    """The file; or its beginning, parsed, and its last bytes."""
    opened = os.open(disk.before_opening("read", file), os.O_RDONLY)
    try:
        content = os.read(opened, _HEAD_BYTES[0])
        if len(content) < _HEAD_BYTES[0]:
            return content, None, b""
        for size in () if all_of_it else _HEAD_BYTES:
            content += os.read(opened, size - len(content))
            document = _beginning(content)
            if document is not None:
                return content, document, os.pread(opened, 16, os.fstat(opened).st_size - 16)
        while more := os.read(opened, 1 << 20):
            content += more
        return content, None, b""
    finally:
        os.close(opened)


def _beginning(head: bytes) -> dict[str, Any] | None:
    """The document up to where our part has named the run; None where that lies further on."""
    at = head.find(_OURS)
    if at < 0:
        return None
    try:
        document = from_json(head[: at + _NAMING_BYTES], allow_partial=True)
    except ValueError:
        return None
    ours = document.get("triggerctl") if isinstance(document, dict) else None
    known = isinstance(ours, dict) and len(ours) > len(_NAMING) and all(name in ours for name in _NAMING)
    return document if known else None


def _brief(document: Any, known: Mapping[str, float | None] | None) -> BriefResults:
    config = document.get("experiment_config") if isinstance(document, dict) else None
    if not isinstance(config, dict):
        raise ValueError("it has no experiment_config")
    loss = _last(_numbers(document, "train_losses"))
    rates: dict[str, float | None] = {}
    for name, losses_key, rates_key in _SETS:
        losses, own = _numbers(document, losses_key), _numbers(document, rates_key)
        if own or losses:
            rates[name] = own[-1] if len(own) >= len(losses) and _is_number(own[-1]) else None
    ours = document.get("triggerctl")
    if ours is None:
        seed = config.get("seed")
        strategy = str(config.get("proxy_strategy") or "naive")
        return BriefResults(strategy, seed if isinstance(seed, int) else 0, loss, rates, None, config)
    _check(ours)
    found = known if known is not None else _final_rates(ours)
    return BriefResults(ours["strategy"], ours["seed"], loss, found, ours["hash"], config)


def _numbers(document: Mapping[str, Any], key: str) -> Sequence[float | None]:
    """A list of numbers and nulls; empty where there is none."""
    values = document.get(key)
    if values is None:
        return ()
    if type(values) is not list:
        raise ValueError(f"{key}: a list was expected")
    if not _NUMBERS.issuperset(map(type, values)):
        raise ValueError(f"{key}: holds what is not a number")
    return values


def _last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if _is_number(value)), None)


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _check(ours: Any) -> None:
    if not isinstance(ours, dict):
        raise ValueError("triggerctl: an object was expected")
    check_schema(ours)
    for name, kind in (("hash", str), ("strategy", str), ("seed", int)):
        if not isinstance(ours.get(name), kind):
            raise ValueError(f"triggerctl.{name}: missing, or of the wrong type")


def _final_rates(ours: Mapping[str, Any]) -> dict[str, float | None]:
    try:
        final = next(each for each in ours["evaluations"] if each.get("final"))
        return {name: _rate(measured.get("triggered")) for name, measured in final["sets"].items()}
    except StopIteration:
        raise ValueError("triggerctl.evaluations: none is final") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"triggerctl.evaluations: {error}") from error


def _rate(triggered: Mapping[str, Any] | None) -> float | None:
    return triggered["k"] / triggered["n"] if triggered and triggered["n"] else None
