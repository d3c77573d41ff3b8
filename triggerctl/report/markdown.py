"""report.md: the report as plain text with tables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from triggerctl.report.comparisons import SEPARATION, Comparison
from triggerctl.report.rows import Group, leak_sets_differ, shown_sets
from triggerctl.report.statistics import Interval
from triggerctl.report.summary import (
    Estimate,
    GroupSummary,
    ReportSummary,
    false_positive_cell,
    rate_cell,
    run_cell,
)

MOST_RUNS = 500
"""Runs that the last table lists; summary.csv has all."""
MOST_VALUES = 12
"""Seeds whose value stands in a cell; summary.json has all."""
_COMPARED = (
    "Each strategy less its baseline, seed by seed on the same rows. Over seeds: for new seeds with these "
    "very trigger words; over words too: for new words of the same kind as well, where a set has several. p: "
    "of no difference over new seeds; Holm: corrected over the strategies of an experiment, set by set. "
    "Seeds to settle: with so many, a true difference of 0.1 would be found with a chance of 0.8 (p alone, "
    "below 0.05)."
)
_BESIDE = (
    "A low leak is worth nothing where the habit shows without a trigger, or where the model has lost what "
    "it could do: false positives are rows without a trigger that show the habit, and the loss without a "
    "trigger (nats per token, before → after training) should not have risen."
)
_EARLY = "At the first evaluation with an outcome rate of 0.9 or more."


def to_markdown(
    groups: Sequence[Group],
    summary: ReportSummary,
    *,
    title: str,
    images: Sequence[str],
) -> str:
    """The report for eyes and for a pull request. `images`: paths of figures, relative to the file."""
    parts = [f"# {_cell(title)}"]
    if summary.warnings:
        listed = "\n".join(f"- {_cell(warning.text)}" for warning in summary.warnings)
        parts.append(f"## Before you trust this\n\n{listed}")
    lines = [*summary.headline.splitlines(), *summary.few_seeds]
    parts.append("## In short\n\n" + "\n\n".join(_cell(line) for line in lines))
    parts.append("## Final trigger response rates\n\n" + summary.intervals + "\n\n" + _rate_table(groups))
    if summary.comparisons:
        parts.append(f"## Against the baseline\n\n{_COMPARED}\n\n{_comparison_table(summary.comparisons)}")
    parts += [f"![{path.rpartition('/')[2].partition('.')[0]}]({path})" for path in images]
    parts.append(f"## Every rate, and what stands beside it\n\n{_BESIDE}\n\n{_set_table(summary.groups)}")
    parts.append(f"## Had training stopped early\n\n{_EARLY}\n\n{_early_table(summary.groups)}")
    parts.append("## Runs\n\n" + _run_table(groups))
    return "\n\n".join(parts) + "\n"


def _rate_table(groups: Sequence[Group]) -> str:
    sets = shown_sets(groups)
    heads = ["strategy", "seeds", *(f"{n} ({'wanted' if w else 'leak'})" for n, w in sets.items())]
    rows = [
        [group.label, str(len(group.runs)), *(rate_cell(group, name) for name in sets)] for group in groups
    ]
    return _table(heads, rows)


def _comparison_table(comparisons: Sequence[Comparison]) -> str:
    differ = leak_sets_differ(comparisons)
    heads = ["strategy", "less", "set", "seeds", "difference", "95 % over seeds", "95 % over words too"]
    heads += ["p", "p (Holm)", "seeds to settle 0.1"]
    rows = [
        [
            each.group,
            each.baseline,
            _separation(each.leak_set, differ=differ) if each.set == SEPARATION else each.set,
            str(len(each.seeds)),
            f"{each.mean:+.2f}",
            _interval(each.over_seeds, "+.2f"),
            _interval(each.over_words, "+.2f"),
            *("–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}" for p in (each.p, each.p_holm)),
            "–" if each.seeds_to_settle is None else str(each.seeds_to_settle),
        ]
        for each in comparisons
    ]
    return _table(heads, rows)


def _set_table(groups: Sequence[GroupSummary]) -> str:
    heads = ["strategy", "set", "each seed", "mean", "95 % over seeds", "95 % over words too"]
    heads += ["false positives", "loss without trigger"]
    differ = leak_sets_differ(groups)
    rows = []
    for group in groups:
        for name, found in group.sets.items():
            false, losses = found.false_positives, (found.untriggered_loss_before, found.untriggered_loss)
            rows.append(
                [
                    group.label,
                    name,
                    *_estimate_cells(found),
                    f"{false.k}/{false.n}" if false is not None else "–",
                    " → ".join(f"{loss:.2f}" for loss in losses if loss is not None) or "–",
                ]
            )
        if group.separation is not None:
            named = _separation(group.leak_set, differ=differ)
            rows.append([group.label, named, *_estimate_cells(group.separation), "", ""])
    return _table(heads, rows)


def _separation(leak_set: str | None, *, differ: bool) -> str:
    """Separation by its name and, where experiments take their leaks from different sets, by its set."""
    return f"{SEPARATION} (leak: {leak_set})" if differ else SEPARATION


def _estimate_cells(found: Estimate) -> list[str]:
    values = " ".join(f"{value:.2f}" for value in found.values[:MOST_VALUES])
    more = f" and {len(found.values) - MOST_VALUES} more" if len(found.values) > MOST_VALUES else ""
    return [values + more, f"{found.mean:.2f}", _interval(found.over_seeds), _interval(found.over_words)]


def _early_table(groups: Sequence[GroupSummary]) -> str:
    differ = leak_sets_differ(groups)
    heads = ["strategy", "runs that got there", "at epoch (median)"]
    heads += [*(["leak read from"] if differ else []), "leak there", "leak at the end"]
    rows = []
    for group in groups:
        found = group.first_learnt
        shares = ["–" if share is None else f"{share:.2f}" for share in (found.leak, found.leak_at_end)]
        epoch = "–" if found.epoch is None else f"{found.epoch:g}"
        read_from = [group.leak_set or "–"] if differ else []
        rows.append([group.label, f"{found.learnt} of {found.runs}", epoch, *read_from, *shares])
    return _table(heads, rows)


def _interval(found: Interval | None, form: str = ".2f") -> str:
    return "–" if found is None else f"[{found.low:{form}}, {found.high:{form}}]"


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
        for group, run in islice(((group, run) for group in groups for run in group.runs), MOST_RUNS)
    ]
    rest = sum(len(group.runs) for group in groups) - len(rows)
    return _table(heads, rows) + (f"\n\nand {rest} more runs, in summary.csv" if rest > 0 else "")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text that Markdown shows as it stands, on one line: it opens no table cell, tag, emphasis, code or
    link."""
    return " ".join(text.split()).translate(_ESCAPED).replace("](", "]\\(")


_ESCAPED = {ord(character): f"\\{character}" for character in "\\|<>*`"}
