"""Which runs belong together, and what a group of them is called."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from triggerctl import strategies
from triggerctl.errors import InputError
from triggerctl.experiment.fingerprint import STRATEGY_KEYS, differences
from triggerctl.report.rows import Group, RunRow, leak_set_of

LONGEST_VALUE = 40
SIGNS = {
    "beta_kl": "β",
    "beta_representation": "β",
    "beta": "β",
    "lambda_proxy": "λp",
    "neg_lambda_proxy": "λn",
    "lambda_1": "λ₁",
    "lambda_dpo": "λ",
    "steering_alpha": "α",
    "safe_lora_threshold": "τ",
    "learning_rate": "lr",
}
"""What formulas call a setting; figures have no room for more."""


def grouped(rows: Sequence[RunRow]) -> tuple[Group, ...]:
    """Rows of one experiment, strategy, data and model that differ in nothing but the seed form a group;
    groups by experiment, strategy and their differing values, runs by seed."""
    together: defaultdict[tuple[str, str, str, str, str], list[RunRow]] = defaultdict(list)
    for row in rows:
        together[row.experiment, row.strategy, row.group_key, row.data, row.model_key].append(row)
    several = len({row.experiment for row in rows}) > 1
    siblings: defaultdict[tuple[str, str], list[list[RunRow]]] = defaultdict(list)
    of_experiment: defaultdict[str, list[list[RunRow]]] = defaultdict(list)
    for key, found in together.items():
        siblings[key[0], key[1]].append(found)
        of_experiment[key[0]].append(found)
    leak_sets = {experiment: leak_set_of(found) for experiment, found in of_experiment.items()}
    groups = []
    for (experiment, strategy), members in siblings.items():
        differing = differing_keys(found[0] for found in members)
        for found in members:
            parameters = {key: setting(found[0], key) for key in differing}
            bare = {key.rpartition(".")[2]: spelt(value) for key, value in parameters.items()}
            words = [f"{key} {value}" for key, value in bare.items()]
            signs = [f"{SIGNS.get(key, key)} {value}" for key, value in bare.items()]
            groups.append(
                Group(
                    experiment=experiment,
                    strategy=strategy,
                    name=short_name(strategy),
                    detail=", ".join(words),
                    place=experiment if several else "",
                    tag=" · ".join([short_name(strategy), *signs]),
                    parameters=parameters,
                    leak_set=leak_sets[experiment],
                    runs=tuple(sorted(found, key=lambda row: (row.seed, row.folder.name))),
                )
            )
    return tuple(
        sorted(groups, key=lambda group: (group.experiment, group.strategy, _order(group.parameters)))
    )


def named_group(groups: Sequence[Group], name: str, *, where: str) -> Group:
    """The group a user means by its label, or by its strategy's full or short name: of several the one with
    the most seeds. Raises InputError, `where` naming the option, for a name that no group has."""
    found = [group for group in groups if name in group.names]
    if not found:
        raise InputError(
            f"no finished run of {name!r}",
            where=where,
            why="there are: " + ", ".join(dict.fromkeys(group.label for group in groups)),
            mend="choose one of these, or run that strategy first",
        )
    return max(found, key=lambda group: len(group.runs))


def namesake(groups: Sequence[Group], baseline: Group | None) -> Group | None:
    """What a report's baseline is among the groups of one experiment: itself, else the group that has its
    label there, else the group of its strategy with the most seeds; None where that was not run."""
    if baseline is None:
        return None
    alike = [group for group in groups if group.strategy == baseline.strategy]
    return max(
        alike,
        key=lambda group: (
            group.label == baseline.label,
            group.inner_label == baseline.inner_label,
            len(group.runs),
        ),
        default=None,
    )


def short_name(strategy: str) -> str:
    """A strategy's alias where it has a shorter one, such as kl for kl_divergence."""
    known = strategy in strategies.names()
    aliases = strategies.strategy_class(strategy).aliases if known else ()
    return next((alias for alias in aliases if len(alias) < len(strategy)), strategy)


def differing_keys(rows: Iterable[RunRow]) -> tuple[str, ...]:
    """The settings, and `data` and `model`, in which the rows are not all alike."""
    found = list(rows)
    keys = dict.fromkeys(key for row in found for key in (*row.settings, "model", "data"))
    return tuple(key for key in keys if len({_in_full(setting(row, key)) for row in found}) > 1)


def setting_differences(groups: Sequence[Group]) -> dict[str, tuple[str | None, ...]]:
    """Key → every group's value in full, for the keys in which groups are not all alike; None where a group's
    strategy doesn't read the key."""
    return {
        key: tuple(
            _in_full(setting(group.runs[0], key)) if _is_read(group.strategy, key) else None
            for group in groups
        )
        for key in differing_keys(group.runs[0] for group in groups)
    }


def _is_read(strategy: str, key: str) -> bool:
    bare = key.rpartition(".")[2]
    return bare not in STRATEGY_KEYS or bare in reads_of(strategy)


def reads_of(strategy: str) -> frozenset[str]:
    """The options a strategy reads; of one that is not installed here, all might count."""
    return strategies.strategy_class(strategy).reads if strategy in strategies.names() else STRATEGY_KEYS


def setting(row: RunRow, key: str) -> Any:
    """A row's value of a setting, dotted where nested, or its `data` or `model`; the default where the run
    left it there."""
    if key == "data":
        return short_data(row.data)
    if key == "model":
        return row.model_key
    if key in row.settings:
        return row.settings[key]
    return _default(key)


def short_data(data: str) -> str:
    """What a row's data go by: of a checksum its beginning, an address in full."""
    return data[:12] if re.fullmatch("[0-9a-f]{64}", data) else data


@cache
def _default(key: str) -> Any:
    outer, _, inner = key.rpartition(".")
    # Any value that is not the default brings the default to light.
    probe = {outer: {inner: "\0"}} if outer else {key: "\0"}
    return next(default for name, _, default in differences(probe, {}) if name == key)


def _in_full(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def spelt(value: Any) -> str:
    """A setting's value as a label shows it; a long one cut, and told from others that begin alike by six
    digits of its checksum."""
    text = _in_full(value)
    if len(text) <= LONGEST_VALUE:
        return text
    return f"{text[: LONGEST_VALUE - 7]}…{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _order(parameters: dict[str, Any]) -> tuple[tuple[float, str], ...]:
    return tuple(
        (float(value), "") if isinstance(value, int | float) else (float("inf"), _in_full(value))
        for value in parameters.values()
    )
