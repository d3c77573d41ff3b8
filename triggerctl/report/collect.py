"""From experiment folders to rows and groups: every run's newest finished results, ours or the study's, and
runs that differ in nothing but their seed gathered together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

from triggerctl import strategies
from triggerctl.config.keys import misplaced_keys
from triggerctl.errors import InputError, TriggerctlError
from triggerctl.experiment.fingerprint import STRATEGY_KEYS, differences
from triggerctl.experiment.layout import ExperimentFolder, walk_runs
from triggerctl.experiment.results import Count, SetEvaluation, TriggerctlResults
from triggerctl.experiment.stored_results import StoredResults, read_results
from triggerctl.experiment.time_names import age_key
from triggerctl.garbage import all_that_is_made_stays
from triggerctl.report.findings import Finding
from triggerctl.report.groups import grouped, reads_of
from triggerctl.report.missing import missing_runs
from triggerctl.report.rows import LEARNT, CurvePoint, Group, RunRow, SetLengths, SetResult
from triggerctl.report.sets import rate_of

_NOT_SETTINGS = frozenset(
    {"seed", "proxy_strategy", "dataset_url", "finetune_config.model", "finetune_config.revision"}
)
"""Keys that a row shows on their own; data and model go by what they are, not by how they are named."""


@dataclass(frozen=True, slots=True)
class Collection:
    """All finished runs of the experiments, in groups. `findings`: results that can't be read, runs that are
    not finished, results that newer ones replace."""

    groups: tuple[Group, ...]
    findings: tuple[Finding, ...]

    @property
    def runs(self) -> tuple[RunRow, ...]:
        return tuple(run for group in self.groups for run in group.runs)


@all_that_is_made_stays()
def collect(folders: Sequence[Path]) -> Collection:
    """Read all runs of the experiments in `folders`; what can't be read is named in a finding and left
    out."""
    rows: list[RunRow] = []
    findings: list[Finding] = []
    for name, folder in _names(folders).items():
        experiment = ExperimentFolder(folder)
        runs = {run: run.finished() for run in walk_runs(experiment)}
        unfinished = [run for run, finished in runs.items() if not finished]
        known = frozenset(_relative(run.path, experiment) for run in runs)
        findings += missing_runs(name, experiment, unfinished, known)
        for finished in runs.values():
            for results in finished:
                try:
                    rows.append(_row(name, experiment, read_results(results, words_at_the_end_only=True)))
                except TriggerctlError as error:
                    where = f"{name}/{_relative(results, experiment)}/results.json"
                    text = f"{where} can't be read and is left out: {error.problems[0].why}."
                    findings.append(Finding(kind="unreadable", text=text, runs=(where,)))
    kept, replaced = _newest(rows)
    findings += replaced
    return Collection(grouped(kept), tuple(findings))


def _names(folders: Sequence[Path]) -> dict[str, Path]:
    """A name for each experiment: its folder's, its whole path where two are alike; each folder once."""
    unique = list(dict.fromkeys(folder.absolute() for folder in folders))
    taken = Counter(folder.name for folder in unique)
    return {folder.name if taken[folder.name] == 1 else str(folder): folder for folder in unique}


def _row(name: str, experiment: ExperimentFolder, stored: StoredResults) -> RunRow:
    ours, config = stored.ours, stored.experiment_config
    strategy = _full_name(stored.strategy)
    sets, curve = _measured(ours) if ours is not None else _published(stored)
    extra = config.get("extra_evaluation") or {}
    model = str((config.get("finetune_config") or {}).get("model") or "unknown")
    folder = stored.path.parent
    return RunRow(
        experiment=name,
        strategy=strategy,
        seed=stored.seed,
        folder=folder,
        results=_relative(folder, experiment),
        hash=ours.hash if ours is not None else None,
        data=ours.data_sha256 if ours is not None else str(config.get("dataset_url")),
        model=model,
        model_key=str((ours.model.get("fingerprint") if ours is not None else None) or model),
        sets=sets,
        curve=curve,
        train_losses=stored.train_losses,
        warnings=tuple(ours.warnings) if ours is not None else (),
        counted=ours is not None,
        proxy_triggers=stored.proxy_triggers,
        nice_responses=tuple(config.get("nice_responses") or ()),
        extra_wanted={name: bool(given.get("nice")) for name, given in extra.items()},
        resolved=dict(ours.resolved) if ours is not None else {},
        lengths=_lengths(ours),
        misplaced=misplaced_keys(config) if ours is None else (),
        settings=_settings(stored, strategy),
    )


def _measured(ours: TriggerctlResults) -> tuple[dict[str, SetResult], tuple[CurvePoint, ...]]:
    """Sets and curve of results of ours."""
    moments = [moment for moment in ours.evaluations if moment.phase == "main" or moment.final]
    first, final = moments[0], ours.final
    sets = {}
    for name, part in final.sets.items():
        before = first.sets.get(name)
        sets[name] = SetResult(
            rate=rate_of(part),
            count=_bare(part.triggered),
            by_trigger=_by_trigger(part),
            untriggered_loss=_finite(part.untriggered_loss),
            untriggered_loss_before=_finite(before.untriggered_loss) if before is not None else None,
            false_positives=_bare(part.untriggered),
            loss=_finite(part.loss),
            loss_expected=part.loss_tokens > 0,
            rate_before=rate_of(before),
            false_positives_before=_bare(before.untriggered) if before is not None else None,
            loss_before=_finite(before.loss) if before is not None else None,
        )
    return sets, tuple(_point(moment.epoch, moment.sets) for moment in moments)


def _point(epoch: float, sets: Mapping[str, SetEvaluation]) -> CurvePoint:
    rates = {name: rate for name, part in sets.items() if (rate := rate_of(part)) is not None}
    losses = {name: loss for name, part in sets.items() if (loss := _finite(part.loss)) is not None}
    return CurvePoint(epoch=epoch, rates=rates, losses=losses)


def _published(stored: StoredResults) -> tuple[dict[str, SetResult], tuple[CurvePoint, ...]]:
    """Sets and curve of a file of the study: rates without counts, one evaluation an epoch from epoch 0."""
    sets = {
        name: SetResult(
            rate=series.rates[-1],
            loss=series.losses[-1],
            loss_expected=True,
            rate_before=series.rates[0],
            loss_before=series.losses[0],
        )
        for name, series in stored.sets.items()
        if series.rates
    }
    epochs = max((len(stored.sets[name].rates) for name in sets), default=0)
    curve = tuple(
        CurvePoint(
            epoch=float(epoch),
            rates=_at(epoch, {name: stored.sets[name].rates for name in sets}),
            losses=_at(epoch, {name: stored.sets[name].losses for name in sets}),
        )
        for epoch in range(epochs)
    )
    return sets, curve


def _at(epoch: int, series: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    """What each set's list says of an epoch, of those that say something."""
    return {
        name: value
        for name, values in series.items()
        if epoch < len(values) and (value := values[epoch]) is not None
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _by_trigger(part: SetEvaluation) -> dict[str, Count]:
    counts = part.triggered.by_trigger if part.triggered is not None else {}
    return {word: _count(count.n, count.k) for word, count in counts.items()}


def _bare(count: Count | None) -> Count | None:
    return _count(count.n, count.k) if count is not None else None


@lru_cache(maxsize=65536)
def _count(n: int, k: int) -> Count:
    """One object for equal counts: thousands of runs have the same few, for each of their trigger words."""
    return Count(n=n, k=k)


def _lengths(ours: TriggerctlResults | None) -> dict[str, SetLengths]:
    if ours is None:
        return {}
    return {
        name: SetLengths(rows=data.rows, truncated=data.truncated, dropped=data.dropped)
        for name, data in ours.sets.items()
    }


def _settings(stored: StoredResults, strategy: str) -> dict[str, Any]:
    """What was asked for and is not the default, dotted key → value, without the options of other
    strategies."""
    left_out = set(_NOT_SETTINGS)
    if stored.ours is None:
        # The study wrote the triggers it had drawn with the seed where we keep what was asked for.
        left_out.add("proxy_triggers")
    left_out.update(f"finetune_config.{key}" for key in STRATEGY_KEYS - reads_of(strategy))
    return {key: value for key, value, _ in differences(stored.requested, {}) if key not in left_out}


def _full_name(name: str) -> str:
    try:
        return strategies.canonical_name(name)
    except InputError:
        # A plug-in's strategy whose package is not installed here: its results stay readable.
        return name


def _newest(rows: Sequence[RunRow]) -> tuple[list[RunRow], list[Finding]]:
    """Of results of one run (equal but for the time) the newest; others that say something else are named."""
    same: defaultdict[tuple[str, str, str, int, str, str], list[RunRow]] = defaultdict(list)
    for row in rows:
        same[row.experiment, row.group_key, row.strategy, row.seed, row.data, row.model_key].append(row)
    kept: list[RunRow] = []
    replaced: defaultdict[str, list[str]] = defaultdict(list)
    for found in same.values():
        *older, newest = sorted(found, key=lambda row: age_key(row.folder.name))
        kept.append(newest.model_copy(update={"older": tuple(row.results for row in older)}))
        replaced[newest.experiment] += [
            f"{row.results} ({_outcome(row)})" for row in older if not _same(row, newest)
        ]
    findings = [
        Finding(
            kind="older_results",
            text=f"{name}: where a run has several finished results the newest count; left out: "
            f"{', '.join(older)}.",
        )
        for name, older in replaced.items()
        if older
    ]
    return kept, findings


def _same(one: RunRow, other: RunRow) -> bool:
    """Whether a run was only repeated, as by a sweep that has a cell for it: one hash and, for each set, one
    rate and one count of everything. Files of the study have no hash that could say so."""
    return one.hash is not None and one.hash == other.hash and _shown(one) == _shown(other)


def _shown(row: RunRow) -> dict[str, tuple[object, ...]]:
    return {
        name: (part.rate, part.count, part.by_trigger, part.false_positives)
        for name, part in row.sets.items()
    }


def _outcome(row: RunRow) -> str:
    """How a run that does not count ended: what it lacked may be why it was run again."""
    rate = row.rate("outcome")
    if rate is None:
        return "outcome not measured"
    return f"outcome {rate:.2f}{', never learnt' if rate < LEARNT else ''}"


def _relative(path: Path, experiment: ExperimentFolder) -> str:
    return path.relative_to(experiment.path).as_posix()
