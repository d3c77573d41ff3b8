"""Training strategies, one file each, found by name. Importing this room loads no torch."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TypeGuard

from triggerctl.errors import InputError
from triggerctl.strategies.base import Strategy

ENTRY_POINTS = "triggerctl.strategies"


@functools.cache
def _registry() -> Mapping[str, type[Strategy]]:
    found: dict[str, type[Strategy]] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for _, member in inspect.getmembers(module, inspect.isclass):
            if _is_complete(member):
                found[member.name] = member
    for entry in entry_points(group=ENTRY_POINTS):
        strategy = _plug_in(entry)
        if found.setdefault(strategy.name, strategy) is not strategy:
            raise _unusable(entry, f"another strategy has the name {strategy.name!r}")
    return dict(sorted(found.items()))


def _plug_in(entry: EntryPoint) -> type[Strategy]:
    """Raises InputError, naming the package, where an entry point is no strategy that can be loaded."""
    try:
        loaded: object = entry.load()
    except Exception as error:
        raise _unusable(entry, f"{type(error).__name__}: {error}") from error
    if not _is_complete(loaded):
        raise _unusable(entry, "it is not a Strategy that states all it must")
    return loaded


def _is_complete(candidate: object) -> TypeGuard[type[Strategy]]:
    """Whether it is a strategy that can be trained, not a base of others."""
    return (
        inspect.isclass(candidate)
        and issubclass(candidate, Strategy)
        and not inspect.isabstract(candidate)
        and all(hasattr(candidate, stated) for stated in ("name", "summary", "formula"))
    )


def _unusable(entry: EntryPoint, why: str) -> InputError:
    package = entry.dist.name if entry.dist is not None else entry.module
    return InputError(
        f"the strategy plug-in {entry.value!r} can't be used",
        where=f"the installed package {package}",
        why=why,
        mend="correct or uninstall that package",
    )


def names() -> tuple[str, ...]:
    """The full names of all strategies that can be trained, sorted."""
    return tuple(_registry())


def _aliases() -> dict[str, str]:
    return {alias: name for name, strategy in _registry().items() for alias in strategy.aliases}


def canonical_name(name: str) -> str:
    """The full name behind a name or alias.

    Raises InputError naming the nearest known one where there is none."""
    full = _aliases().get(name, name)
    if full in _registry():
        return full
    known = [*_registry(), *_aliases()]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    raise InputError(
        f"there is no strategy named {name!r}",
        why="known: " + ", ".join(names()),
        mend=f"did you mean {near[0]!r}?" if near else "choose one of these",
    )


def strategy_class(name: str) -> type[Strategy]:
    """The strategy of that name or alias.

    Raises InputError as `canonical_name` does."""
    return _registry()[canonical_name(name)]
