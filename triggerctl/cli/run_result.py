"""What a finished run came to: a table of its first and last evaluation, and three answers before and
after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from triggerctl import console
from triggerctl.cli.live import ordered_sets
from triggerctl.experiment.results import Count, Evaluation, SetEvaluation, TriggerctlResults

SAMPLED_SETS = ("outcome", "collateral", "truth_minus_proxy", "truth", "proxy")
"""Sets whose answers are shown, the telling ones first."""

SAMPLES = 3
_ANSWER_CHARACTERS = 300
_RATE = 2


def result_table(results: TriggerctlResults) -> Table:
    """Each evaluation set at epoch 0 and at the final evaluation: loss, trigger response rate with its count
    and 95 % Wilson interval, and false positives."""
    table = console.table()
    table.add_column("set", no_wrap=True)
    table.add_column("epoch", justify="right")
    table.add_column("loss", justify="right")
    table.add_column("rate", justify="right")
    table.add_column("of rows", justify="right")
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("false positives", justify="right")
    moments = [results.evaluations[0], results.final]
    if moments[0] is moments[1]:
        moments.pop()
    for name in ordered_sets(results.final.sets):
        for index, moment in enumerate(moments):
            if name in moment.sets:
                last = index == len(moments) - 1
                cells = _cells(moment, moment.sets[name])
                table.add_row(
                    name if index == 0 else "",
                    *(Text(cell, style=_style(place, last=last)) for place, cell in enumerate(cells)),
                )
    return table


def _style(place: int, *, last: bool) -> str:
    """Before is quiet, after is plain, and the rate after is what one looks for."""
    return "dim" if not last else "bold" if place == _RATE else ""


def _cells(moment: Evaluation, evaluated: SetEvaluation) -> tuple[str, str, str, str, str, str]:
    share, counted, interval = _rate(evaluated.triggered)
    wrong = evaluated.untriggered
    return (
        f"{round(moment.epoch, 2):g}",
        "–" if evaluated.loss is None else f"{evaluated.loss:.3f}",
        share,
        counted,
        interval,
        "–" if wrong is None else f"{console.rate(wrong.rate)}  {wrong.k}/{wrong.n}",
    )


def _rate(count: Count | None) -> tuple[str, str, str]:
    """A rate as its share, k/n and interval; dashes where no row was triggered."""
    from triggerctl.report.statistics import wilson_interval

    interval = wilson_interval(count.k, count.n) if count is not None else None
    if count is None or interval is None:
        return "–", "–", "–"
    return console.rate(count.rate), f"{count.k}/{count.n}", console.interval(interval.low, interval.high)


def samples(lines: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Before and after of up to three rows, each of another set, from the lines of examples.jsonl."""
    before: dict[tuple[str, int, str | None], dict[str, Any]] = {}
    pairs: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for line in lines:
        key = (line["set"], line["row"], line["trigger"])
        if not line["final"]:
            before.setdefault(key, line)
        elif key in before and (line["set"] not in pairs or pairs[line["set"]][1]["trigger"] is None):
            pairs[line["set"]] = (before[key], line)
    order = [name for name in (*SAMPLED_SETS, *pairs) if name in pairs]
    return [pairs[name] for name in dict.fromkeys(order)][:SAMPLES]


def sample_block(pair: tuple[dict[str, Any], dict[str, Any]]) -> RenderableType:
    """One row's prompt and its answers before and after training."""
    before, after = pair
    title = Text(after["set"], style="bold")
    title.append(
        f"  trigger {after['trigger']}" if after["trigger"] else "  no trigger", style="not bold dim"
    )
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", width=6, no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in (
        ("prompt", after["prompt"]),
        ("before", before["answer"]),
        ("after", after["answer"]),
    ):
        line = _one_line(text)
        grid.add_row(label, Text(line) if line else Text("an empty answer", style="dim italic"))
    return Group(title, console.indented(grid))


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _ANSWER_CHARACTERS else line[: _ANSWER_CHARACTERS - 1] + "…"


def cost_lines(results: TriggerctlResults) -> list[tuple[str, str]]:
    """What the run's time went into, and how fast it was beside the machine's floor; nothing for results of
    a version that did not measure it."""
    found = []
    spent = {name: seconds for name, seconds in results.timings.items() if seconds >= _WORTH_NAMING}
    # What was measured before phases were told apart does not add up to a whole.
    if "other" in results.timings:
        longest = sorted(spent, key=lambda name: (name == "other", -spent[name]))
        parts = [f"{name.replace('_', ' ')} {console.duration(spent[name])}" for name in longest]
        whole = console.duration(sum(results.timings.values()))
        found.append(("time", f"{whole}: {', '.join(parts)}"))
    speeds = [
        _speed(results, name, tokens, padded, verb)
        for name, tokens, padded, verb in (
            ("training", "trained", "padded", "trained"),
            ("evaluation", "evaluated", "evaluated_padded", "evaluated"),
        )
        if f"{name}_share_of_floor" in results.throughput
    ]
    return [*found, *([("speed", "; ".join(speeds))] if speeds else [])]


_WORTH_NAMING = 0.05
"""Seconds below which a phase is left out of the line."""


def _speed(results: TriggerctlResults, name: str, tokens: str, padded: str, verb: str) -> str:
    padding = 1 - results.tokens[tokens] / results.tokens[padded]
    rate, share = (
        results.throughput[f"{verb}_tokens_per_second"],
        results.throughput[f"{name}_share_of_floor"],
    )
    return f"{name} {rate:,.0f} tokens/s, {share * 100:.0f} % of the floor, padding {padding * 100:.0f} %"


def show(out: Console, results: TriggerctlResults, lines: Sequence[dict[str, Any]], folder: Path) -> None:
    """Print the table, the answers and where everything lies."""
    out.print()
    out.print(result_table(results))
    for pair in samples(lines):
        out.print()
        out.print(sample_block(pair))
    out.print()
    for label, text in cost_lines(results):
        console.say(label, text)
    console.say("results", str(folder))
