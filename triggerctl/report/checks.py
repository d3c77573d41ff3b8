"""The honesty checks: what must be said before any figure is shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from triggerctl.report.findings import Finding
from triggerctl.report.groups import differing_keys
from triggerctl.report.rows import Group, RunRow

LEARNT = 0.5
"""A run whose outcome rate ends below this has not learnt the habit; where it leaks then says nothing."""
FEW_ROWS = 30
_MACHINE_KEYS = ("device", "dtype", "threads")
_EVALUATION_KEYS = frozenset({"train_split", "max_to_eval", "proxy_neg_content", "max_seq_length"})
"""Keys of `finetune_config` that decide which rows are evaluated, and how much of them."""


def check(groups: Sequence[Group]) -> list[Finding]:
    """Everything that the runs themselves show to be doubtful, in the order of `findings.Kind` or not."""
    runs = [(group, run) for group in groups for run in group.runs]
    return [
        *_never_learnt(groups),
        *_diverged(runs),
        *_incomparable(groups),
        *_missing_seeds(groups),
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
                f"{group.label} never learnt the habit with {_seeds(failed)} (outcome at the end: "
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
                f"{group.label}, seed {run.seed} diverged: its outcome loss ends at {outcome.loss:.2f}, "
                f"above the {outcome.loss_before:.2f} before training."
            )
            yield Finding(kind="diverged", text=text, runs=(group.label,))


def _incomparable(groups: Sequence[Group]) -> Iterator[Finding]:
    """Groups that differ in more than how they were trained."""
    first = [group.runs[0] for group in groups]
    models: defaultdict[str, list[str]] = defaultdict(list)
    names: dict[str, str] = {}
    data: defaultdict[str, list[str]] = defaultdict(list)
    for group in groups:
        for run in group.runs:
            models[run.model_key].append(group.label)
            names[run.model_key] = run.model
            data[run.data].append(group.label)
    if len(models) > 1:
        alike = len(set(names.values())) < len(names)
        shown = {f"{names[key]} {key[:12]}" if alike else names[key]: who for key, who in models.items()}
        yield Finding(
            kind="different_model",
            text=f"Not all runs train the same model: {_parts(shown)}. Their rates don't compare.",
        )
    if len(data) > 1:
        short = {
            (key[:12] if key in data and len(key) == 64 else key): labels for key, labels in data.items()
        }
        yield Finding(kind="different_data", text=f"Not all runs use the same data: {_parts(short)}.")
    keys = [
        key.rpartition(".")[2]
        for key in differing_keys(first)
        if key not in ("model", "data")
        and (not key.startswith("finetune_config.") or key.rpartition(".")[2] in _EVALUATION_KEYS)
    ]
    if keys:
        yield Finding(
            kind="different_data",
            text=f"Groups differ in {', '.join(keys)}, so they are not evaluated on the same rows: "
            "compare them with care.",
        )
    for key in _MACHINE_KEYS:
        values = defaultdict(list)
        for group in groups:
            for run in group.runs:
                if key in run.resolved:
                    values[str(run.resolved[key])].append(group.label)
        if len(values) > 1:
            yield Finding(
                kind="different_machine", text=f"Not all runs had the same {key}: {_parts(values)}."
            )


def _missing_seeds(groups: Sequence[Group]) -> Iterator[Finding]:
    by_experiment: defaultdict[str, set[int]] = defaultdict(set)
    for group in groups:
        by_experiment[group.experiment].update(group.seeds)
    for experiment, seeds in by_experiment.items():
        own = [group for group in groups if group.experiment == experiment]
        lacking = [(g, missing) for g in own if (missing := sorted(seeds - set(g.seeds)))]
        if lacking:
            named = _some(
                [f"{group.label} lacks {_seeds(missing)}" for group, missing in lacking], joint="; "
            )
            text = f"Not every group has every seed, so means are over different data: {named}."
            yield Finding(kind="missing_seeds", text=text, runs=tuple(group.label for group, _ in lacking))


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
        whose = f"One seed only: {_some(single)}"
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
        whose = "all runs" if len(who) == len(runs) else _some(who)
        yield Finding(kind="run_warning", text=f"{warning.rstrip('.')} ({whose}).", runs=tuple(who))


def _parts(values: dict[str, list[str]]) -> str:
    return "; ".join(f"{value} ({_some(list(dict.fromkeys(labels)))})" for value, labels in values.items())


def _some(labels: Sequence[str], at_most: int = 4, joint: str = ", ") -> str:
    rest = len(labels) - at_most
    return joint.join(labels[:at_most]) + (f" and {rest} more" if rest > 0 else "")


def _seeds(seeds: Sequence[int] | dict[int, float]) -> str:
    words = [str(seed) for seed in seeds]
    return f"seed {words[0]}" if len(words) == 1 else f"seeds {', '.join(words[:-1])} and {words[-1]}"
