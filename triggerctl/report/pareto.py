"""Which groups of the trade-off plane no other one beats, and which belong on one path."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from triggerctl.report.rows import Group


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
    more.

    Where several parameters vary, the one with the most values orders the paths, and there is one for each
    setting of the others. A group stands on one path at most.
    """
    strategies: defaultdict[str, list[Group]] = defaultdict(list)
    for group in groups:
        strategies[group.strategy].append(group)
    paths: list[tuple[Group, ...]] = []
    for siblings in strategies.values():
        keys = dict.fromkeys(key for group in siblings for key in group.parameters)
        choices = [_along(key, siblings) for key in keys]
        paths += max(choices, key=lambda found: max(map(len, found), default=0), default=[])
    return tuple(paths)


def _along(key: str, siblings: Sequence[Group]) -> list[tuple[Group, ...]]:
    """The paths in order of one parameter."""
    families: defaultdict[str, list[tuple[float, Group]]] = defaultdict(list)
    for group in siblings:
        value = group.parameters.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            others = {name: other for name, other in group.parameters.items() if name != key}
            families[json.dumps(others, sort_keys=True, default=str)].append((float(value), group))
    return [
        tuple(group for _, group in sorted(family, key=lambda member: member[0]))
        for family in families.values()
        if len(family) > 1
    ]
