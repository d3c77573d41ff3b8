"""The honesty checks between groups: what of them must not be compared, or only with care."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from triggerctl.report.findings import Finding
from triggerctl.report.groups import differing_keys, reads_of, setting, short_data, spelt
from triggerctl.report.rows import Group
from triggerctl.report.wording import listed, named_seeds, parts

_MACHINE_KEYS = ("device", "dtype", "threads")
_EVALUATION_KEYS = frozenset({"train_split", "max_to_eval", "proxy_neg_content", "max_seq_length"})
"""Keys of `finetune_config` that decide which rows are evaluated, and how much of them."""

_STRENGTHS = frozenset(
    {
        *("beta_kl", "beta_representation", "beta", "lambda_proxy", "neg_lambda_proxy", "lambda_1"),
        *("lambda_dpo", "steering_alpha", "safe_lora_threshold", "safe_lora_num_proj_layers"),
    }
)
"""How hard a strategy pulls: what a fair comparison varies."""


def check_between(groups: Sequence[Group]) -> list[Finding]:
    """What sets groups apart other than how they were trained, in the order of `findings.Kind` or not."""
    return [
        *_incomparable(groups),
        *_other_rows(groups),
        *_missing_seeds(groups),
        *_one_value(groups),
    ]


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
            text=f"Not all runs train the same model: {parts(shown)}. Their rates don't compare.",
        )
    if len(data) > 1:
        short = {short_data(key): labels for key, labels in data.items()}
        yield Finding(kind="different_data", text=f"Not all runs use the same data: {parts(short)}.")
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
            yield Finding(kind="different_machine", text=f"Not all runs had the same {key}: {parts(values)}.")


def _missing_seeds(groups: Sequence[Group]) -> Iterator[Finding]:
    by_experiment: defaultdict[str, set[int]] = defaultdict(set)
    for group in groups:
        by_experiment[group.experiment].update(group.seeds)
    for experiment, seeds in by_experiment.items():
        own = [group for group in groups if group.experiment == experiment]
        lacking = [(g, missing) for g in own if (missing := sorted(seeds - set(g.seeds)))]
        if lacking:
            named = listed(
                [f"{group.label} lacks {named_seeds(missing)}" for group, missing in lacking], joint="; "
            )
            text = f"Not every group has every seed, so means are over different data: {named}."
            yield Finding(kind="missing_seeds", text=text, runs=tuple(group.label for group, _ in lacking))


def _other_rows(groups: Sequence[Group]) -> Iterator[Finding]:
    """Groups of one experiment whose runs of one seed were not measured on the same rows, told by how many
    rows each trigger has."""
    measured: defaultdict[tuple[str, int, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for group in groups:
        for run in group.runs:
            for name, part in run.sets.items():
                if part.by_trigger:
                    rows = ", ".join(f"{word} {count.n}" for word, count in sorted(part.by_trigger.items()))
                    measured[group.experiment, run.seed, name][rows].append(group.label)
    apart: defaultdict[str, list[str]] = defaultdict(list)
    for (_, seed, name), found in measured.items():
        if len(found) > 1:
            apart[name].append(str(seed))
    if apart:
        where = "; ".join(f"{name} with {named_seeds(seeds)}" for name, seeds in apart.items())
        yield Finding(
            kind="different_rows",
            text=f"Not all groups were measured on the same rows: {where}. Differences there are not paired.",
        )


def _one_value(groups: Sequence[Group]) -> Iterator[Finding]:
    """Strategies with a strength that was tried at one value, where there is something to compare with."""
    if len({group.strategy for group in groups}) < 2:
        return
    tried: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    names: dict[str, str] = {}
    for group in groups:
        for key in sorted(_STRENGTHS & reads_of(group.strategy)):
            value = setting(group.runs[0], f"finetune_config.{key}")
            # A strength of 0 switches a term off: nothing was tried with it.
            if value:
                tried[group.strategy, key].add(spelt(value))
                names[group.strategy] = group.name
    single = []
    for strategy, name in names.items():
        keys = {key: values for (whose, key), values in tried.items() if whose == strategy}
        if all(len(found) == 1 for found in keys.values()):
            values = ", ".join(f"{key} {next(iter(found))}" for key, found in keys.items())
            single.append(f"{name} ({values})")
    if single:
        text = (
            f"Tried at one value only: {listed(single, at_most=8)}. Another value may trade habit and leak "
            "differently, so this compares these settings, not the strategies."
        )
        yield Finding(kind="one_value", text=text)
