"""The names of the keys and where they belong; what to answer when a name is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from triggerctl.config.jsonc import Key
from triggerctl.config.models import (
    LEGACY_EXPERIMENT_KEYS,
    LEGACY_FINETUNE_KEYS,
    ExperimentConfig,
    ExtraEvaluation,
    FinetuneConfig,
)
from triggerctl.errors import InputError, Problem

FINETUNE = "finetune_config"
EXTRA = "extra_evaluation"

_LEVELS: dict[Key, tuple[str, ...]] = {
    (): tuple(ExperimentConfig.model_fields),
    (FINETUNE,): tuple(FinetuneConfig.model_fields),
}
_LEGACY: dict[Key, frozenset[str]] = {(): LEGACY_EXPERIMENT_KEYS, (FINETUNE,): LEGACY_FINETUNE_KEYS}


def dotted(key: Key) -> str:
    """A key as people write it: `finetune_config.epochs`, `outcome_triggers[2]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.removeprefix(".")


def is_legacy(key: Key) -> bool:
    """Whether a key is accepted and does nothing."""
    return key[-1] in _LEGACY.get(key[:-1], ())


def find_key(name: str, where: str) -> tuple[str, ...]:
    """The full key of a dotted name, or of a bare one that stands at one level only.

    Raises InputError, naming the nearest known key.
    """
    key = tuple(name.split("."))
    if len(key) == 1 and name not in _LEVELS[()] and not is_legacy(key):
        inner = (FINETUNE, name)
        key = inner if name in _LEVELS[FINETUNE,] or is_legacy(inner) else key
    for length in range(1, len(key) + 1):
        level = _names_at(key[: length - 1])
        if level is None:
            outer = dotted(key[: length - 1])
            raise InputError(f"{outer} holds nothing by name", where=where, mend=f"set {outer} itself")
        if level and key[length - 1] not in level and not is_legacy(key[:length]):
            problem = unknown_key(key[:length], where)
            raise InputError(problem.what, where=where, why=problem.why, mend=problem.mend)
    if key == (FINETUNE,):
        raise InputError(
            f"{FINETUNE} cannot be set as a whole",
            where=where,
            mend=f"set its keys, such as {FINETUNE}.epochs",
        )
    return key


def unknown_key(key: Key, where: str | None) -> Problem:
    """What to say of a key that nobody knows at its level: its right level, or the nearest one known."""
    outer, name = key[:-1], str(key[-1])
    here = _names_at(outer) or ()
    for level, names in _LEVELS.items():
        if level == outer or outer not in _LEVELS:
            continue
        place = dotted((*level, name))
        if name in names:
            return Problem(
                f'"{name}" stands at the wrong level', where, _belongs(level), f"its place: {place}"
            )
        if name in _LEGACY[level]:
            why = f"{_belongs(level)}, and does nothing there any more"
            return Problem(f'"{name}" stands at the wrong level', where, why, "leave it out")
    mend = None
    if near := nearest(name, here):
        mend = f'did you mean "{near}"?'
    elif outer in _LEVELS:
        everywhere = {n: (*level, n) for level, names in _LEVELS.items() for n in names}
        if near := nearest(name, everywhere):
            mend = f'did you mean "{dotted(everywhere[near])}"?'
    return Problem(f'the key "{name}" is not known', where, None, mend or _offer(here))


def misplaced_keys(stored: Mapping[str, object]) -> tuple[str, ...]:
    """Keys of a configuration, as stored in results, that stand at the wrong level: whoever wrote the results
    without checking them has ignored these. Legacy keys and unknown ones are passed over."""
    found: list[str] = []
    inner = stored.get(FINETUNE)
    for level, values in (((), stored), ((FINETUNE,), inner if isinstance(inner, Mapping) else {})):
        elsewhere = {name for other, names in _LEVELS.items() if other != level for name in names}
        foreign = elsewhere.difference(_LEVELS[level], _LEGACY[level])
        found += [name for name in values if name in foreign]
    return tuple(found)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like a misspelt one, upper and lower case aside; None where none is like it."""
    by_case = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower().replace("-", "_"), by_case, n=1, cutoff=0.65)
    return by_case[close[0]] if close else None


def _names_at(outer: Key) -> tuple[str, ...] | None:
    """The names known within a key; empty where any is good, None where there is no level."""
    if outer in _LEVELS:
        return _LEVELS[outer]
    if outer == (EXTRA,):
        return ()
    if outer[:1] == (EXTRA,) and len(outer) == 2:
        return tuple(ExtraEvaluation.model_fields)
    return None


def _belongs(level: Key) -> str:
    return f"it belongs in {FINETUNE}" if level else f"it belongs beside {FINETUNE}, not in it"


def _offer(names: tuple[str, ...]) -> str:
    if len(names) <= 5:
        return f"known here: {', '.join(names)}"
    return "triggerctl validate --schema lists every key"
