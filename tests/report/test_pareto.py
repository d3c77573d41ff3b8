"""pytest tests/report/test_pareto.py"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from triggerctl.report.pareto import frontier, parameter_paths
from triggerctl.report.rows import Group

RATES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])
POINTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.tuples(RATES, RATES), min_size=1)


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] >= other[1]


@given(POINTS)
def test_the_frontier_holds_exactly_what_nothing_dominates(points: dict[str, tuple[float, float]]) -> None:
    found = frontier(points)
    free = {n for n, point in points.items() if not any(dominates(other, point) for other in points.values())}
    assert set(found) == free
    assert len(found) == len(free)


@given(POINTS)
def test_along_the_frontier_more_is_kept_and_more_leaks(points: dict[str, tuple[float, float]]) -> None:
    for one, other in itertools.pairwise(frontier(points)):
        assert points[one][0] <= points[other][0]
        assert points[one][1] <= points[other][1]


def group(strategy: str, **parameters: Any) -> Group:
    detail = ", ".join(f"{key} {value}" for key, value in parameters.items())
    return Group(
        experiment="e",
        strategy=strategy,
        name=strategy,
        detail=detail,
        place="",
        tag=f"{strategy} {detail}",
        parameters=parameters,
        leak_set=None,
        runs=(),
    )


def paths_of(*groups: Group) -> list[list[Mapping[str, Any]]]:
    return [[member.parameters for member in path] for path in parameter_paths(groups)]


def test_a_path_runs_in_the_order_of_its_numbers_not_of_their_text() -> None:
    found = paths_of(*(group("kl", beta=value) for value in (10, 0.5, 100, 2.5)))
    assert found == [[{"beta": 0.5}, {"beta": 2.5}, {"beta": 10}, {"beta": 100}]]


def test_no_path_joins_strategies_or_a_single_group() -> None:
    assert paths_of(group("kl", beta=1), group("orth", beta=2), group("naive")) == []


def test_of_two_parameters_the_longer_one_orders_a_path_for_each_value_of_the_other() -> None:
    found = paths_of(*(group("kl", beta=beta, lr=lr) for lr in (1e-4, 1e-3) for beta in (1, 10, 100)))
    assert [[member["beta"] for member in path] for path in found] == [[1, 10, 100], [1, 10, 100]]
    assert [{member["lr"] for member in path} for path in found] == [{1e-4}, {1e-3}]


def test_parameters_that_rise_and_fall_together_order_one_path() -> None:
    found = paths_of(group("posneg", a=1.0, b=0.0), group("posneg", a=0.5, b=0.5), group("posneg", a=0, b=1))
    assert [[(member["a"], member["b"]) for member in path] for path in found] == [
        [(0, 1), (0.5, 0.5), (1.0, 0.0)]
    ]
    coupled = [group("posneg", own=value, other=2 * value, mode="x", lr=1e-4) for value in (10, 0.5, 2)]
    assert [[member["own"] for member in path] for path in paths_of(*coupled)] == [[0.5, 2, 10]]


def test_parameters_that_change_in_different_orders_are_no_path() -> None:
    assert paths_of(group("posneg", a=1, b=1), group("posneg", a=2, b=3), group("posneg", a=3, b=2)) == []


def test_two_groups_that_differ_in_two_parameters_are_no_path() -> None:
    assert paths_of(group("posneg", a=1, b=1), group("posneg", a=2, b=3)) == []


def test_a_path_of_several_parameters_joins_no_two_modes() -> None:
    groups = [group("posneg", a=i, b=-i, mode="xy"[i % 2]) for i in range(5)]
    assert [[member["a"] for member in path] for path in paths_of(*groups)] == [[0, 2, 4]]


def test_words_and_switches_order_nothing() -> None:
    assert paths_of(group("kl", mode="a"), group("kl", mode="b")) == []
    assert paths_of(group("kl", peft=True), group("kl", peft=False)) == []


def test_a_group_without_the_number_is_left_out_of_the_path() -> None:
    assert paths_of(group("kl", beta=None), group("kl", beta=2), group("kl", beta=1)) == [
        [{"beta": 1}, {"beta": 2}]
    ]
