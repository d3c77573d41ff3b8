"""The strategy of a plan for people and for programs: what it computes, the options it reads, and which of
those that are set it leaves unread."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from triggerctl import console
from triggerctl.cli.live import many
from triggerctl.config.finetune import FinetuneConfig
from triggerctl.config.keys import FINETUNE
from triggerctl.experiment.fingerprint import STRATEGY_KEYS
from triggerctl.strategies.alignment_plane import PLANE_OPTIONS

if TYPE_CHECKING:
    from triggerctl.strategies.base import Phase
    from triggerctl.training.plan import RunPlan

OF_SOME_STRATEGIES = STRATEGY_KEYS | PLANE_OPTIONS
"""Keys of `finetune_config` that only some strategies read."""


def show_strategy(plan: RunPlan) -> None:
    """Print the formula, the options by where their values come from, the phases where there are several,
    what is done to the weights at the end, and what is set and not read. Templates set the weights of several
    strategies: that is no fault."""
    chosen = plan.strategy
    console.say("strategy", f"{chosen.name}: {chosen.summary}", Text(chosen.formula, style="italic"))
    console.say("options", *_option_lines(plan))
    made = chosen(plan.config)
    if len(made.phases()) > 1:
        console.say("phases", *(_phase_line(phase) for phase in made.phases()))
    if made.endings():
        console.say("ending", *made.endings())
    left = [f"{', '.join(keys)}: set, {why}" for why, keys in _left_unread(plan).items()]
    if left:
        console.say("not read", *left)


def strategy_document(plan: RunPlan) -> dict[str, Any]:
    """The same for programs, as plain JSON."""
    chosen = plan.strategy
    made = chosen(plan.config)
    return {
        "name": chosen.name,
        "summary": chosen.summary,
        "formula": chosen.formula,
        "paper": chosen.paper,
        "reads": _read(plan),
        "unread": [key for keys in _left_unread(plan).values() for key in keys],
        "phases": [
            {"name": phase.name, "sets": _sets(phase), "epochs": phase.epochs} for phase in made.phases()
        ],
        "endings": list(made.endings()),
    }


def _read(plan: RunPlan) -> dict[str, Any]:
    """Option → value, in the order of the configuration; those set without effect left out."""
    values = plan.config.finetune_config.model_dump(mode="json")
    idle = {key for keys in _left_unread(plan).values() for key in keys}
    return {key: value for key, value in values.items() if key in plan.strategy.reads - idle}


def _given(plan: RunPlan) -> Mapping[str, object]:
    """What config.json, a sweep's cell or the command line says of `finetune_config`."""
    inner = plan.loaded.given.get(FINETUNE, {})
    assert isinstance(inner, Mapping)
    return inner


def _left_unread(plan: RunPlan) -> dict[str, list[str]]:
    """Why → the options that are set and not read for that reason, in the order of the configuration."""
    chosen, given = plan.strategy, _given(plan)
    foreign = dict.fromkeys(OF_SOME_STRATEGIES - chosen.reads, "and read by other strategies only")
    idle = {key: f"and without effect: {why}" for key, why in chosen.without_effect(plan.config).items()}
    reasons = foreign | idle
    found: dict[str, list[str]] = {}
    for key in FinetuneConfig.model_fields:
        if key in reasons and given.get(key) is not None:
            found.setdefault(reasons[key], []).append(key)
    return found


def _option_lines(plan: RunPlan) -> list[str]:
    read, given = _read(plan), _given(plan)
    if not read:
        return ["none of its own"]
    by_default = {key: value for key, value in read.items() if key not in given}
    groups = (
        ("", [f"{key}={_spelt(value)}" for key, value in read.items() if key in given]),
        ("default: ", [f"{key}={_spelt(v)}" for key, v in by_default.items() if v is not None]),
        ("not set: ", [key for key, value in by_default.items() if value is None]),
    )
    return [head + ", ".join(words) for head, words in groups if words]


def _spelt(value: object) -> str:
    """A value as one would type it after `--set key=`."""
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _phase_line(phase: Phase) -> str:
    return f"{phase.name} on {' and '.join(_sets(phase))}, {many(phase.epochs, 'epoch')}"


def _sets(phase: Phase) -> list[str]:
    return list(dict.fromkeys(name for sets in phase.streams.values() for name in sets))
