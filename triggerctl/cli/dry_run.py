"""``sweep --dry-run``: what would become of each run, and what it would cost."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from triggerctl import console
from triggerctl.cli.options import Globals
from triggerctl.cli.rates import state_text
from triggerctl.cli.sweep_screen import warn_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table
    from rich.text import Text

    from triggerctl.sweep.cell import RunSettings
    from triggerctl.sweep.estimate import Estimate
    from triggerctl.sweep.plan import PlannedCell, Sweep

_WORDS = {"run": "would run", "resume": "would resume", "skip": "done", "blocked": "kept", "same": "same"}
_RESULTS = re.compile(r"\b\d{8}_\d{6}(_\d+)?\b")


def show_dry_run(sweep: Sweep, settings: RunSettings, globals_: Globals, *, as_json: bool) -> None:
    """Print the plan: a line for each run, and below them why, once for all that share a reason.

    Raises InputError where a model can't be used as asked."""
    from triggerctl.sweep.estimate import estimates

    with console.busy("looking at the models"):
        found = estimates(sweep, device=settings.device)
    if as_json:
        console.print_json(
            [_document(sweep, planned, _estimate(found, planned)) for planned in sweep.planned]
        )
        return
    warn_of(sweep)
    console.out.print(_table(sweep, found))
    console.out.print()
    for word, why in _reasons(sweep):
        console.say(word, why)
    whole = sum(found[planned.hash].seconds for planned in sweep.planned if planned.is_to_train)
    if whole:
        console.say("about", f"{console.duration(whole)} for all, one after the other on the whole machine")
    console.next_step(globals_.line_without("--dry-run"))


def _verdict(sweep: Sweep, planned: PlannedCell) -> tuple[str, str]:
    """What would become of a run, in a word, and why."""
    if planned.same_as is not None:
        return "same", f"the same run as {sweep.name(planned.same_as)}"
    return planned.action.value, planned.reason


def _estimate(found: Mapping[str, Estimate], planned: PlannedCell) -> Estimate | None:
    return found.get(planned.hash) if planned.is_to_train else None


def _document(sweep: Sweep, planned: PlannedCell, estimate: Estimate | None) -> dict[str, object]:
    action, reason = _verdict(sweep, planned)
    return {
        "folder": sweep.name(planned.cell),
        "hash": planned.hash,
        "action": action,
        "reason": reason,
        "seconds": None if estimate is None else round(estimate.seconds, 1),
        "memory_bytes": None if estimate is None else estimate.memory_bytes,
    }


def _table(sweep: Sweep, found: Mapping[str, Estimate]) -> Table:
    rows: list[dict[str, str | Text]] = []
    for planned in sweep.planned:
        estimate = _estimate(found, planned)
        rows.append(
            {
                "run": sweep.name(planned.cell),
                "now": state_text(_WORDS[_verdict(sweep, planned)[0]]),
                "about": "–" if estimate is None else console.duration(estimate.seconds),
                "memory": "–" if estimate is None else console.size(estimate.memory_bytes),
                "hash": planned.hash[:12],
            }
        )
    heads = {name: name for name in ("run", "now", "about", "memory", "hash")}
    return console.fitted_table(heads, rows, words=("run", "now"), droppable=("hash",))


def _shared(word: str, why: str) -> str:
    """A reason as runs may share it: without the results or the run that it names."""
    if word == "same":
        return "the same run as one above, but for keys that its strategy doesn't read"
    return _RESULTS.sub("…", why).removesuffix(", in …")


def _reasons(sweep: Sweep) -> list[tuple[str, str]]:
    """A word and a sentence for each reason. Where runs with one word have different reasons, each says whose
    it is."""
    runs: dict[tuple[str, str], list[PlannedCell]] = {}
    for planned in sweep.planned:
        word, why = _verdict(sweep, planned)
        runs.setdefault((word, _shared(word, why)), []).append(planned)
    words = [word for word, _ in runs]
    told = []
    for (word, shared), those in runs.items():
        why = shared if len(those) > 1 else _verdict(sweep, those[0])[1]
        whose = ", ".join(sweep.name(planned.cell) for planned in those)
        told.append((_WORDS[word].rpartition(" ")[2], f"{whose}: {why}" if words.count(word) > 1 else why))
    return told
