"""The honesty checks on runs themselves: what must be said before any figure is shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from triggerctl.report.comparability import check_between
from triggerctl.report.findings import Finding
from triggerctl.report.rows import LEARNT, Group, RunRow
from triggerctl.report.wording import listed, named_seeds

FEW_ROWS = 30
MUCH_CUT = 0.2
"""Answers cut short in more of a set's rows than this share are worth a word."""


def check(groups: Sequence[Group]) -> list[Finding]:
    """Everything that the runs themselves show to be doubtful, in the order of `findings.Kind` or not."""
    runs = [(group, run) for group in groups for run in group.runs]
    return [
        *_never_learnt(groups),
        *_diverged(runs),
        *_misplaced(runs),
        *check_between(groups),
        *_cut(runs),
        *_few_rows(runs),
        *_one_seed(groups),
        *_no_counts(runs),
        *_run_warnings(runs),
    ]


def _never_learnt(groups: Sequence[Group]) -> Iterator[Finding]:
    for group in groups:
        rates = {run.seed: rate for run in group.runs if (rate := run.rate("outcome")) is not None}
        failed = {seed: rate for seed, rate in rates.items() if rate < LEARNT}
        if failed:
            text = (
                f"{group.label} never learnt the habit with {named_seeds(failed)} (outcome at the end: "
                f"{', '.join(f'{rate:.2f}' for rate in failed.values())}), so a low leak means nothing there."
            )
            yield Finding(kind="never_learnt", text=text, runs=(group.label,))


def _diverged(runs: Sequence[tuple[Group, RunRow]]) -> Iterator[Finding]:
    for group, run in runs:
        broken = [name for name, part in run.sets.items() if part.loss is None and part.loss_expected]
        if broken:
            text = f"{group.label}, seed {run.seed} diverged: no finite loss on {', '.join(broken)}."
            yield Finding(kind="diverged", text=text, runs=(group.label,))
            continue
        outcome = run.sets.get("outcome")
        if outcome is None or outcome.loss is None or outcome.loss_before is None:
            continue
        if outcome.loss > outcome.loss_before + 1e-6:
            text = (
                f"{group.label}, seed {run.seed} ended worse than it began: its outcome loss is "
                f"{outcome.loss:.2f}, above the {outcome.loss_before:.2f} before training."
            )
            yield Finding(kind="diverged", text=text, runs=(group.label,))


def _misplaced(runs: Sequence[tuple[Group, RunRow]]) -> Iterator[Finding]:
    """Results of the study whose configuration says more than its scripts heard."""
    found: defaultdict[tuple[str, ...], defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for group, run in runs:
        if run.misplaced:
            found[run.misplaced][group.label].append(run.seed)
    for keys, groups in found.items():
        who = [f"{label} with {named_seeds(seeds)}" for label, seeds in groups.items()]
        text = (
            f"The study's scripts ignored {', '.join(keys)}, at the wrong level of the configuration: "
            f"these runs are not what their configuration says: {listed(who, at_most=12, joint='; ')}."
        )
        yield Finding(kind="misplaced_keys", text=text, runs=tuple(groups))


def _cut(runs: Sequence[tuple[Group, RunRow]]) -> Iterator[Finding]:
    """Rows that lost a part, or everything, to max_seq_length."""
    dropped: dict[str, tuple[int, int]] = {}
    cut: dict[str, tuple[int, int]] = {}
    for _, run in runs:
        for name, length in run.lengths.items():
            # Of several runs the worst: one that lost rows is enough to make its rate another question's.
            dropped[name] = max(dropped.get(name, (0, 0)), (length.dropped, length.rows))
            cut[name] = max(cut.get(name, (0, 0)), (length.truncated, length.rows))
    gone = [f"{name} ({k} of {n})" for name, (k, n) in dropped.items() if k]
    if gone:
        text = (
            f"Rows whose prompt, trigger included, does not fit max_seq_length were left out of "
            f"{', '.join(gone)}: these sets lack their longest prompts."
        )
        yield Finding(kind="truncated", text=text)
    short = [f"{name} ({k} of {n})" for name, (k, n) in cut.items() if n and k / n > MUCH_CUT]
    if short:
        text = f"Many answers were cut at max_seq_length, so losses leave their ends out: {', '.join(short)}."
        yield Finding(kind="truncated", text=text)


def _few_rows(runs: Sequence[tuple[Group, RunRow]]) -> Iterator[Finding]:
    fewest: dict[str, int] = {}
    for _, run in runs:
        for name in run.wanted:
            count = run.sets[name].count
            if count is not None:
                fewest[name] = min(count.n, fewest.get(name, count.n))
    small = {name: n for name, n in fewest.items() if n < FEW_ROWS}
    if small:
        sets = ", ".join(f"{name} ({n})" for name, n in small.items())
        text = f"Fewer than {FEW_ROWS} triggered rows in {sets}: single rates move in large steps there."
        yield Finding(kind="few_rows", text=text)


def _one_seed(groups: Sequence[Group]) -> Iterator[Finding]:
    single = [group.label for group in groups if len(group.runs) == 1]
    if not single:
        return
    whose = "There is one seed" if len(groups) == 1 else "Each group has one seed"
    if len(single) < len(groups):
        whose = f"One seed only: {listed(single)}"
    counted = any(group.runs[0].counted for group in groups if len(group.runs) == 1)
    over = "; intervals are over rows alone" if counted else ""
    yield Finding(
        kind="one_seed", text=f"{whose}. How much seeds differ is not known{over}.", runs=tuple(single)
    )


def _no_counts(runs: Sequence[tuple[Group, RunRow]]) -> Iterator[Finding]:
    bare = sum(not run.counted for _, run in runs)
    if bare:
        text = (
            f"{bare} of {len(runs)} runs are the published study's, which hold neither counts nor "
            "truth_minus_proxy: no intervals within a run, and outcome and proxy partly measured on "
            "training rows."
        )
        yield Finding(kind="no_counts", text=text)


def _run_warnings(runs: Sequence[tuple[Group, RunRow]]) -> Iterator[Finding]:
    """What runs themselves warned of, each text once with the runs that said it."""
    said: defaultdict[str, list[str]] = defaultdict(list)
    for group, run in runs:
        for warning in run.warnings:
            said[warning].append(f"{group.label}, seed {run.seed}")
    for warning, who in said.items():
        whose = "all runs" if len(who) == len(runs) else listed(who)
        yield Finding(kind="run_warning", text=f"{warning.rstrip('.')} ({whose}).", runs=tuple(who))
