"""Training strategies, one file each, found by name. Importing this room loads no torch."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from triggerctl.errors import InputError
from triggerctl.strategies.base import Strategy

ENTRY_POINTS = "triggerctl.strategies"

PUBLISHED = {
    "positive_negative_proxy": ("posneg",),
    "representation_constraint": ("rep",),
    "grad_project": (),
    "grad_project_precomputed_proxy_grad": (),
    "orth_penalty": ("orth",),
    "directional_penalty": (),
    "steering_weights": ("steering",),
    "steering_weights_add_alignment_plane": ("steer_at_end",),
    "safe_lora": (),
    "dpo": (),
    "o_lora": (),
}
"""Strategies of the published study that this version can name but not train, with their aliases. A
configuration that uses one is read and checked; a run of it is refused."""


@functools.cache
def _registry() -> Mapping[str, type[Strategy]]:
    found: dict[str, type[Strategy]] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for _, member in inspect.getmembers(module, inspect.isclass):
            if issubclass(member, Strategy) and not inspect.isabstract(member):
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
    if not (inspect.isclass(loaded) and issubclass(loaded, Strategy) and not inspect.isabstract(loaded)):
        raise _unusable(entry, "it is not a Strategy that states all it must")
    return loaded


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
    table = {alias: name for name, strategy in _registry().items() for alias in strategy.aliases}
    table.update(
        {alias: name for name, aliases in PUBLISHED.items() for alias in aliases if alias not in table}
    )
    return table


def canonical_name(name: str) -> str:
    """The full name behind a name or alias.

    Raises InputError naming the nearest known one where there is none."""
    full = _aliases().get(name, name)
    if full in _registry() or full in PUBLISHED:
        return full
    known = [*_registry(), *PUBLISHED, *_aliases()]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    raise InputError(
        f"there is no strategy named {name!r}",
        why="known: " + ", ".join(names()),
        mend=f"did you mean {near[0]!r}?" if near else "choose one of these",
    )


def strategy_class(name: str) -> type[Strategy]:
    """The strategy of that name or alias.

    Raises InputError where it is unknown, or known from the study but not part of this version."""
    full = canonical_name(name)
    if full not in _registry():
        raise InputError(
            f"the strategy {full!r} can't be trained by this version",
            why="its configuration was read, but the method itself is not part of this version",
            mend="choose one of: " + ", ".join(names()),
        )
    return _registry()[full]
