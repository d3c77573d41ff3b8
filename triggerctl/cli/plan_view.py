"""A checked plan for people and for programs: what would be trained, on which rows, and what it would
cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from triggerctl import console
from triggerctl.cli.live import many, ordered_sets
from triggerctl.cli.strategy_view import show_strategy, strategy_document

if TYPE_CHECKING:
    from triggerctl.training.describe import Description
    from triggerctl.training.plan import RunPlan
    from triggerctl.training.preview import PreviewRow, Segment

STYLES = {
    "template": "dim",
    "prompt": "",
    "trigger": "bold magenta",
    "nice": "bold green",
    "response": "cyan",
}
COUNTS = ("rows", "triggered", "train", "evaluated", "truncated", "dropped")


def show_plan(plan: RunPlan, description: Description) -> None:
    """Print what was found: configuration, strategy, model, data, sets, work and estimates."""
    drawn = plan.config.proxy_triggers is None
    console.say("config", str(plan.loaded.path))
    show_strategy(plan)
    console.say(
        "model",
        f"{plan.model.name}: {description.parameters:,} parameters, {description.trainable:,} trained",
    )
    console.say("data", f"{plan.source.origin}: {many(len(plan.source.rows), 'row')}")
    triggers = ", ".join(plan.splits.proxy_triggers) or "none"
    console.say("triggers", f"proxy: {triggers}" + (f" (drawn by seed {plan.config.seed})" if drawn else ""))
    console.out.print()
    rows = [
        {"set": name, **{count: f"{getattr(description.sets[name], count):,}" for count in COUNTS}}
        for name in ordered_sets(description.sets)
    ]
    heads = {name: name for name in ("set", *COUNTS)}
    console.out.print(console.fitted_table(heads, rows, words=("set",)))
    console.out.print()
    console.say(
        "work",
        f"{many(description.updates, 'update')} of {many(description.rows_per_update, 'row')}, "
        f"{description.trained_tokens:,} tokens trained on, {description.evaluated_tokens:,} evaluated",
    )
    memory = f"{console.size(description.memory_bytes)} of {console.size(description.available_bytes)} memory"
    where = f"on {description.device}, {description.dtype}"
    console.say("estimate", f"about {console.duration(description.seconds)}, {memory}, {where}")
    console.say("now", f"{plan.action.value}: {plan.reason}")
    for text in dict.fromkeys((*plan.warnings, *description.warnings)):
        console.warn(text)


def show_preview(rows: Sequence[PreviewRow]) -> None:
    """Print rows as the model sees them. Where there is no colour each piece has a line that names its
    part."""
    coloured = console.out.color_system is not None and not console.out.no_color
    console.out.print()
    if coloured:
        legend = Text()
        for role, style in STYLES.items():
            legend.append("nice response" if role == "nice" else role, style=style).append("  ")
        legend.append("underlined", style="underline").append(": in the loss", style="dim")
        console.out.print(legend)
    for row in rows:
        console.out.print()
        head = Text(row.set, style="bold")
        cut = ", truncated" if row.truncated else ""
        about = f"  {row.part}, row {row.row} of the data, {many(row.tokens, 'token')}{cut}"
        console.out.print(head.append(about, style="not bold dim"))
        if coloured:
            console.out.print(console.indented(_coloured(row.segments)))
        else:
            for segment in row.segments:
                console.out.print(f"  {_part(segment):23}{segment.text!r}", soft_wrap=True)


def _coloured(segments: Sequence[Segment]) -> Text:
    text = Text(overflow="fold")
    for segment in segments:
        style = "red strike" if segment.cut else STYLES[segment.role]
        text.append(segment.text.replace("\n", "↵\n"), style=f"{style} underline" if segment.loss else style)
    return text


def _part(segment: Segment) -> str:
    """A piece's role and what becomes of it."""
    return segment.role + (", cut" if segment.cut else ", in the loss" if segment.loss else "")


def plan_document(plan: RunPlan, description: Description, shown: Sequence[PreviewRow]) -> dict[str, Any]:
    """The same for programs, as plain JSON."""
    return {
        "config": str(plan.loaded.path),
        "hash": plan.hash,
        "action": plan.action.value,
        "reason": plan.reason,
        "strategy": strategy_document(plan),
        "seed": plan.config.seed,
        "model": {
            "name": plan.model.name,
            "parameters": description.parameters,
            "trainable": description.trainable,
        },
        "data": {
            "origin": plan.source.origin,
            "sha256": plan.source.sha256,
            "rows": len(plan.source.rows),
        },
        "proxy_triggers": list(plan.splits.proxy_triggers),
        "sets": {name: each.model_dump(mode="json") for name, each in description.sets.items()},
        "updates": description.updates,
        "rows_per_update": description.rows_per_update,
        "trained_tokens": description.trained_tokens,
        "evaluated_tokens": description.evaluated_tokens,
        "estimate": {
            "seconds": round(description.seconds, 1),
            "memory_bytes": description.memory_bytes,
            "available_bytes": description.available_bytes,
            "device": description.device,
            "dtype": description.dtype,
        },
        "warnings": list(dict.fromkeys((*plan.warnings, *description.warnings))),
        "preview": [dataclasses.asdict(row) for row in shown],
    }
