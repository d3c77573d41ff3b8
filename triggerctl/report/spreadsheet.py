"""summary.csv: one row a run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from triggerctl.report.early import first_learnt
from triggerctl.report.rows import Group, RunRow, shown_sets


def to_csv(groups: Sequence[Group]) -> str:
    """One row a run; for each set its rate, k, n, Wilson interval, false positives and losses, final and
    before; the set that its leak is read from, and what separation comes to with it; the first evaluation
    with an outcome rate of 0.9, and the leak there."""
    names = list(dict.fromkeys(name for group in groups for run in group.runs for name in run.sets))
    shown = [name for name in shown_sets(groups) if name in names]
    names = [*shown, *(name for name in names if name not in shown)]
    columns = ["experiment", "group", "strategy", "parameters", "seed"]
    per_set = (
        *("rate", "k", "n", "low", "high", "rate_before"),
        *("false_positive_rate", "false_positive_k", "false_positive_n"),
        *("loss", "loss_before"),
        *("untriggered_loss", "untriggered_loss_before"),
    )
    columns += [f"{name}_{column}" for name in names for column in per_set]
    columns += ["leak_set", "separation", "first_learnt_epoch", "first_learnt_leak"]
    columns += ["model", "data", "hash", "results", "warnings"]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for group in groups:
        for run in group.runs:
            writer.writerow(_row(group, run, names))
    return out.getvalue()


def _row(group: Group, run: RunRow, names: Sequence[str]) -> dict[str, object]:
    learnt = first_learnt(run, group.leak_set)
    leak = run.rate(group.leak_set) if group.leak_set is not None else None
    row: dict[str, object] = {
        "leak_set": group.leak_set,
        "separation": run.habit - leak if run.habit is not None and leak is not None else None,
        "first_learnt_epoch": learnt.epoch if learnt else None,
        "first_learnt_leak": learnt.leak if learnt else None,
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
            f"{name}_untriggered_loss": part.untriggered_loss,
            f"{name}_untriggered_loss_before": part.untriggered_loss_before,
        }
    return row
