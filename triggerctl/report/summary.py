"""The report as data and as plain text: summary.json (typed, versioned), summary.csv (one row a run),
report.md."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from triggerctl import __version__
from triggerctl.report.findings import Finding
from triggerctl.report.rows import Group, RunRow, leak_set_of, shown_sets

SUMMARY_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class SetSummary(_Part):
    """A set's trigger response rate over a group's seeds. `low` to `high`: 95 % interval, by Student's t
    over seeds or, of a single run, Wilson's over rows; null where neither can be had, and `note` says
    why."""

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    method: Literal["wilson", "seeds", "words"] | None
    seeds: int
    note: str | None


class GroupSummary(_Part):
    """`separation`: mean rate of outcome and collateral, minus the rate on the report's leak set."""

    label: str
    experiment: str
    strategy: str
    parameters: dict[str, Any]
    seeds: tuple[int, ...]
    sets: dict[str, SetSummary]
    separation: float | None


class ReportSummary(_Part):
    """What summary.json holds."""

    schema_version: int = SUMMARY_VERSION
    triggerctl: str = __version__
    headline: str
    warnings: tuple[Finding, ...]
    baseline: str | None
    leak_set: str | None
    groups: tuple[GroupSummary, ...]
    runs: tuple[RunRow, ...]


def summarise(
    groups: Sequence[Group], *, headline: str, warnings: Sequence[Finding], baseline: Group | None
) -> ReportSummary:
    """The whole report as one typed value."""
    leak_set = leak_set_of(groups)
    return ReportSummary(
        headline=headline,
        warnings=tuple(warnings),
        baseline=baseline.label if baseline is not None else None,
        leak_set=leak_set,
        groups=tuple(_group(group, leak_set) for group in groups),
        runs=tuple(run for group in groups for run in group.runs),
    )


def _group(group: Group, leak_set: str | None) -> GroupSummary:
    sets = {}
    for name in shown_sets([group]):
        over_seeds = group.summary(name)
        if over_seeds is None:
            continue
        interval = group.interval(name)
        sets[name] = SetSummary(
            mean=over_seeds.mean,
            deviation=over_seeds.deviation,
            low=interval.low if interval else None,
            high=interval.high if interval else None,
            method=interval.method if interval else None,
            seeds=over_seeds.seeds,
            note=over_seeds.note,
        )
    return GroupSummary(
        label=group.label,
        experiment=group.experiment,
        strategy=group.strategy,
        parameters=group.parameters,
        seeds=group.seeds,
        sets=sets,
        separation=group.separation(leak_set) if leak_set else None,
    )


def to_json(summary: ReportSummary) -> str:
    return summary.model_dump_json(indent=2) + "\n"


def to_csv(groups: Sequence[Group]) -> str:
    """One row a run; for each set its rate, k, n, Wilson interval, false positives and losses, final and
    before."""
    names = list(dict.fromkeys(name for group in groups for run in group.runs for name in run.sets))
    shown = [name for name in shown_sets(groups) if name in names]
    names = [*shown, *(name for name in names if name not in shown)]
    columns = ["experiment", "group", "strategy", "parameters", "seed"]
    per_set = (
        *("rate", "k", "n", "low", "high", "rate_before"),
        *("false_positive_rate", "false_positive_k", "false_positive_n"),
        *("loss", "loss_before"),
    )
    columns += [f"{name}_{column}" for name in names for column in per_set]
    columns += ["model", "data", "hash", "results", "warnings"]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for group in groups:
        for run in group.runs:
            writer.writerow(_csv_row(group, run, names))
    return out.getvalue()


def _csv_row(group: Group, run: RunRow, names: Sequence[str]) -> dict[str, object]:
    row: dict[str, object] = {
        "experiment": run.experiment,
        "group": group.label,
        "strategy": run.strategy,
        "parameters": json.dumps(group.parameters, ensure_ascii=False),
        "seed": run.seed,
        "model": run.model,
        "data": run.data,
        "hash": run.hash,
        "results": run.results,
        "warnings": " | ".join(run.warnings),
    }
    for name in names:
        part = run.sets.get(name)
        if part is None:
            continue
        interval, false = part.interval, part.false_positives
        row |= {
            f"{name}_rate": part.rate,
            f"{name}_k": part.count.k if part.count else None,
            f"{name}_n": part.count.n if part.count else None,
            f"{name}_low": interval.low if interval else None,
            f"{name}_high": interval.high if interval else None,
            f"{name}_rate_before": part.rate_before,
            f"{name}_false_positive_rate": false.rate if false else None,
            f"{name}_false_positive_k": false.k if false else None,
            f"{name}_false_positive_n": false.n if false else None,
            f"{name}_loss": part.loss,
            f"{name}_loss_before": part.loss_before,
        }
    return row


def to_markdown(
    groups: Sequence[Group], *, title: str, headline: str, warnings: Sequence[Finding], images: Sequence[str]
) -> str:
    """The report for eyes and for a pull request. `images`: paths of figures, relative to the file."""
    parts = [f"# {_cell(title)}"]
    if warnings:
        parts.append("## Before you trust this\n\n" + "\n".join(f"- {_cell(w.text)}" for w in warnings))
    parts.append("## In short\n\n" + "\n\n".join(_cell(line) for line in headline.splitlines()))
    parts.append("## Final trigger response rates\n\n" + rate_legend(groups) + "\n\n" + _rate_table(groups))
    parts += [f"![{path.rpartition('/')[2].partition('.')[0]}]({path})" for path in images]
    parts.append("## Runs\n\n" + _run_table(groups))
    return "\n\n".join(parts) + "\n"


def rate_legend(groups: Sequence[Group]) -> str:
    """What the numbers of the rate table are, in words."""
    if all(len(group.runs) == 1 for group in groups):
        return "One seed; in brackets the 95 % Wilson interval over rows."
    return (
        "Mean over seeds; in brackets the 95 % t-interval over seeds (of a single run: Wilson's, over rows)."
    )


def rate_cell(group: Group, name: str) -> str:
    """`0.37 [0.05, 0.69]`; a dash where the set was not measured."""
    mean, interval = group.mean(name), group.interval(name)
    if mean is None:
        return "–"
    return f"{mean:.2f}" + (f" [{interval.low:.2f}, {interval.high:.2f}]" if interval else "")


def _rate_table(groups: Sequence[Group]) -> str:
    sets = shown_sets(groups)
    heads = ["strategy", "seeds", *(f"{n} ({'wanted' if w else 'leak'})" for n, w in sets.items())]
    rows = [
        [group.label, str(len(group.runs)), *(rate_cell(group, name) for name in sets)] for group in groups
    ]
    return _table(heads, rows)


def _run_table(groups: Sequence[Group]) -> str:
    sets = shown_sets(groups)
    heads = ["strategy", "seed", *sets, "false positives", "results"]
    rows = [
        [
            group.label,
            str(run.seed),
            *(run_cell(run, name) for name in sets),
            false_positive_cell(run),
            f"{run.experiment}/{run.results}",
        ]
        for group in groups
        for run in group.runs
    ]
    return _table(heads, rows)


def run_cell(run: RunRow, name: str) -> str:
    """`0.37 (22/60)`; the rate alone where nothing was counted."""
    part = run.sets.get(name)
    if part is None or part.rate is None:
        return "–"
    return f"{part.rate:.2f}" + (f" ({part.count.k}/{part.count.n})" if part.count else "")


def false_positive_cell(run: RunRow) -> str:
    """The habit without any trigger, all sets together: `0.01 (3/310)`."""
    counts = [part.false_positives for part in run.sets.values() if part.false_positives is not None]
    n, k = sum(count.n for count in counts), sum(count.k for count in counts)
    return f"{k / n:.2f} ({k}/{n})" if n else "–"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text that Markdown shows as it stands, on one line: it opens no table cell, tag, emphasis, code or
    link."""
    escaped = "".join(f"\\{c}" if c in "\\|<>*`" else c for c in " ".join(text.split()))
    return escaped.replace("](", "]\\(")
