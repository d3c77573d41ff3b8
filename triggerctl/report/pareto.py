"""Which groups of the trade-off plane no other one beats, and which belong on one path."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeGuard

from triggerctl.report.rows import Group

MANY = 3
"""Groups that a path of several parameters needs."""


def frontier(points: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """The names whose point (leak, habit kept) no other dominates, least leak first.

    One dominates another when it leaks no more and keeps no less, and is better in one of the two. Equal
    points stand together.
    """
    result: list[str] = []
    best = float("-inf")
    last: tuple[float, float] | None = None
    for name, point in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if point[1] > best or point == last:
            result.append(name)
            best, last = point[1], point
    return tuple(result)


def parameter_paths(groups: Sequence[Group]) -> tuple[tuple[Group, ...], ...]:
    """Groups of one strategy that differ in one numeric parameter alone, in its order; each path has two or
    more. Or three and more that differ in several numbers, each of which rises or falls all along the path,
    so that all of them order it alike.

    Where several parameters vary apart from each other, the one with the most values orders the paths, and
    there is one for each setting of the others. A group stands on one path at most.
    """
    strategies: defaultdict[str, list[Group]] = defaultdict(list)
    for group in groups:
        strategies[group.strategy].append(group)
    paths: list[tuple[Group, ...]] = []
    for siblings in strategies.values():
        keys = dict.fromkeys(key for group in siblings for key in group.parameters)
        choices = [*(_along(key, siblings) for key in keys), _together(siblings)]
        paths += max(choices, key=lambda found: max(map(len, found), default=0), default=[])
    return tuple(paths)


def _along(key: str, siblings: Sequence[Group]) -> list[tuple[Group, ...]]:
    """The paths in order of one parameter."""
    families: defaultdict[str, list[tuple[float, Group]]] = defaultdict(list)
    for group in siblings:
        value = group.parameters.get(key)
        if _is_number(value):
            others = {name: other for name, other in group.parameters.items() if name != key}
            families[_spelt(others)].append((float(value), group))
    return [
        tuple(group for _, group in sorted(family, key=lambda member: member[0]))
        for family in families.values()
        if len(family) > 1
    ]


def _together(siblings: Sequence[Group]) -> list[tuple[Group, ...]]:
    """The paths along which several parameters change with each other. Two groups make none: of two, any
    numbers rise or fall alike."""
    families: defaultdict[str, list[Group]] = defaultdict(list)
    for group in siblings:
        fixed = {key: None if _is_number(value) else [value] for key, value in group.parameters.items()}
        families[_spelt(fixed)].append(group)
    found = []
    for family in families.values():
        numbers = {key: values for key, values in _numbers(family).items() if len(set(values)) > 1}
        if len(family) < MANY or not numbers:
            continue
        first = next(iter(numbers.values()))
        order = sorted(range(len(family)), key=first.__getitem__)
        if all(_one_way([values[place] for place in order]) for values in numbers.values()):
            found.append(tuple(family[place] for place in order))
    return found


def _numbers(family: Sequence[Group]) -> dict[str, list[float]]:
    """Each numeric parameter's values, one a group; the groups have the same."""
    keys = [key for key, value in family[0].parameters.items() if _is_number(value)]
    return {key: [float(group.parameters[key]) for group in family] for key in keys}


def _one_way(values: Sequence[float]) -> bool:
    """Whether they rise all along, or fall."""
    steps = [after - before for before, after in pairwise(values)]
    return all(step > 0 for step in steps) or all(step < 0 for step in steps)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _spelt(parameters: Mapping[str, Any]) -> str:
    """Equal for equal values."""
    return json.dumps(parameters, sort_keys=True, default=str)
