"""``validate --config-only``: configurations alone, many at once; no data and no model is touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from triggerctl import console
from triggerctl.cli.options import Globals
from triggerctl.errors import InputError

if TYPE_CHECKING:
    from triggerctl.config.overrides import Override
    from triggerctl.experiment.layout import ExperimentFolder


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What was found in one configuration; `error` is None for one that holds."""

    name: str
    path: Path
    warnings: tuple[str, ...] = ()
    error: InputError | None = None


def check_configs(
    names: Sequence[str], globals_: Globals, changes: Sequence[Override], *, as_json: bool
) -> int:
    """Check each configuration and say what was found; 2 if any does not hold, else 0."""
    verdicts = [_check(name, globals_, changes) for name in names]
    failed = [verdict for verdict in verdicts if verdict.error is not None]
    if as_json:
        console.print_json([_document(verdict) for verdict in verdicts])
    else:
        for verdict in verdicts:
            if verdict.error is None:
                console.say("ok", verdict.name)
        for text, count in _warnings(verdicts).items():
            console.warn(text if len(verdicts) == 1 else f"({count} of {len(verdicts)}) {text}")
        for verdict in failed:
            if verdict.error is not None:
                console.show_error(verdict.error)
        if len(verdicts) > 1:
            console.say("", f"{len(verdicts) - len(failed)} of {len(verdicts)} configs can be used")
        if len(verdicts) == 1 and not failed:
            console.next_step(globals_.suggest("validate", names[0]))
    return 2 if failed else 0


def _check(name: str, globals_: Globals, changes: Sequence[Override]) -> _Verdict:
    from triggerctl.config.load import load_config
    from triggerctl.experiment.find import experiments_root, find_experiment
    from triggerctl.strategies import canonical_name
    from triggerctl.training.plan import check_config

    try:
        folder = find_experiment(name, experiments_root(globals_.root))
        loaded = load_config(folder.config, overrides=changes)
        canonical_name(loaded.config.proxy_strategy)
    except InputError as error:
        return _Verdict(name, Path(name), error=error)
    try:
        _, warnings = check_config(loaded)
    except InputError as error:
        if not _holds_cells(folder):
            return _Verdict(name, loaded.path, loaded.warnings, error)
        warnings = tuple(f"{p.what}: its cells must mend that, it can't run as it is" for p in error.problems)
    return _Verdict(name, loaded.path, tuple(dict.fromkeys((*loaded.warnings, *warnings))))


def _holds_cells(folder: ExperimentFolder) -> bool:
    """Whether the configuration is the base of a sweep, whose cells set the keys that it lacks."""
    from triggerctl.experiment.cell_names import CELL_PREFIX, SEED_PREFIX

    prefixes = (CELL_PREFIX, SEED_PREFIX)
    return any(path.is_dir() and path.name.startswith(prefixes) for path in folder.path.iterdir())


def _warnings(verdicts: Sequence[_Verdict]) -> Counter[str]:
    """Each warning once, without its file's name, and of how many configurations it is true."""
    told = (text.removeprefix(f"{v.path}: ") for v in verdicts for text in v.warnings)
    return Counter(told)


def _document(verdict: _Verdict) -> dict[str, object]:
    problems = verdict.error.problems if verdict.error is not None else ()
    return {
        "experiment": verdict.name,
        "ok": verdict.error is None,
        "warnings": list(verdict.warnings),
        "problems": [{"what": p.what, "where": p.where, "why": p.why, "mend": p.mend} for p in problems],
    }
