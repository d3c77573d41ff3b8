"""Rows on which groups part: one showed the habit at its final evaluation where another did not.

Two runs are compared row by row where they were asked the same: same data, seed, set, rows and triggers. What
all groups agree on is counted, not kept, so that a page can hold the rest with every prompt in full.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triggerctl.errors import InputError, TriggerctlError
from triggerctl.experiment.jsonl import read_lines, whole_lines
from triggerctl.report.rows import Group, RunRow
from triggerctl.report.sets import WANTED
from triggerctl.report.wording import listed

MOST_GROUPS, MOST_SEEDS = 30, 20
"""What a page can be asked about; the two groups to compare are always among them."""
MOST_CHARACTERS = 3_000_000
"""Of prompts in all; the seeds that come later are left out."""

Pair = tuple[str, str]
_Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """The rows of one set and seed on which not all groups agree, as columns. `prompts`: None where the run
    kept none; `agreed`: how many other rows all groups answered without the habit, and with it."""

    set: str
    seed: int
    wanted: bool | None
    rows: tuple[int, ...]
    triggers: tuple[str | None, ...]
    prompts: tuple[str | None, ...]
    agreed: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Said:
    """What one run did: index into `Flips.asked` → a verdict for each of its rows, 1 where it showed the
    habit."""

    group: str
    seed: int
    verdicts: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Flips:
    """`groups`: labels that can be compared, in the report's order; `left_out`: how many more there are;
    `seeds_cut`: seeds of these groups of which rows are left out, ascending."""

    groups: tuple[str, ...]
    asked: tuple[Asked, ...]
    said: tuple[Said, ...]
    left_out: int
    seeds_cut: tuple[int, ...] = ()

    @property
    def scope(self) -> str:
        """Which of the rows that two groups were asked are here, as a sentence's beginning, and what is
        not."""
        if not self.seeds_cut:
            return "Every row that both were asked"
        seeds = listed([str(seed) for seed in self.seeds_cut])
        return (
            "Rows that both were asked, without those that this page has no room for "
            f"(some or all of seed{'s' if len(self.seeds_cut) > 1 else ''} {seeds})"
        )


@dataclass(slots=True)
class _Rows:
    """One set of one seed while it is gathered: (group, verdicts) of each run that was asked it."""

    prompts: dict[int, str] = field(default_factory=dict)
    said: list[tuple[str, list[bool]]] = field(default_factory=list)


def read_flips(groups: Sequence[Group], compared: Pair | None = None) -> Flips | None:
    """Final verdicts from the runs' verdicts.jsonl, as far as they were asked the same; None where no two
    groups were. Runs without the file (the study's), or with a damaged one, add nothing."""
    known = {group.label: group for group in groups if any(run.counted for run in group.runs)}
    first = [label for label in compared or () if label in known]
    chosen = set((first + [label for label in known if label not in first])[:MOST_GROUPS])
    gathered: dict[_Key, _Rows] = {}
    cut: set[int] = set()
    wanted = dict(WANTED)
    for label, group in known.items():
        if label in chosen:
            for run in group.runs[:MOST_SEEDS]:
                wanted |= run.extra_wanted
                _gather(run, label, gathered)
            cut.update(run.seed for run in group.runs[MOST_SEEDS:])
    asked: list[Asked] = []
    verdicts: defaultdict[tuple[str, int], dict[int, str]] = defaultdict(dict)
    room = MOST_CHARACTERS
    for key, found in sorted(gathered.items(), key=lambda item: _order(item[0])):
        if len({label for label, _ in found.said}) < 2:
            continue
        table, kept = _parted(key, found, wanted.get(key[2]))
        room -= sum(len(prompt or "") for prompt in table.prompts)
        if room < 0:
            cut.add(table.seed)
            continue
        for label, said in found.said:
            verdicts[label, table.seed][len(asked)] = "".join("01"[said[i]] for i in kept)
        asked.append(table)
    labels = {label for label, _ in verdicts}
    if not labels:
        return None
    return Flips(
        groups=tuple(label for label in known if label in labels),
        asked=tuple(asked),
        said=tuple(Said(label, seed, found) for (label, seed), found in verdicts.items()),
        left_out=len(known) - len(chosen),
        seeds_cut=tuple(sorted(cut)),
    )


def _order(key: _Key) -> tuple[int, int, str]:
    """Seeds ascending, within one the sets as they are shown."""
    _, seed, name, *_ = key
    places = list(WANTED)
    return seed, places.index(name) if name in places else len(places), name


def _gather(run: RunRow, label: str, gathered: dict[_Key, _Rows]) -> None:
    """Add a run's final verdicts under what it was asked."""
    prompts: dict[str, dict[int, str]] | None = None
    for line in _final_lines(run.folder / "verdicts.jsonl"):
        try:
            rows, triggers = tuple(map(int, line["row"])), tuple(line["trigger"])
            said = [bool(verdict) for verdict in line["verdict"]]
            name = str(line["set"])
            key = (run.data, run.seed, name, run.settings.get("prompt_template"), rows, triggers)
            found = gathered.setdefault(key, _Rows())
        except (KeyError, TypeError, ValueError):
            return
        if not len(rows) == len(triggers) == len(said):
            return
        if not found.prompts:
            prompts = _prompts(run.folder / "prompts.jsonl") if prompts is None else prompts
            found.prompts = prompts.get(name, {})
        found.said.append((label, said))


def _parted(key: _Key, found: _Rows, wanted: bool | None) -> tuple[Asked, list[int]]:
    """The rows on which the groups are not of one mind, and their places."""
    _, seed, name, _, rows, triggers = key
    columns = list(zip(*(said for _, said in found.said), strict=True))
    kept = [i for i, column in enumerate(columns) if len(set(column)) > 1]
    with_habit = sum(all(column) for column in columns)
    table = Asked(
        set=name,
        seed=seed,
        wanted=wanted,
        rows=tuple(rows[i] for i in kept),
        triggers=tuple(triggers[i] for i in kept),
        prompts=tuple(found.prompts.get(rows[i]) for i in kept),
        agreed=(len(columns) - with_habit - len(kept), with_habit),
    )
    return table, kept


def _final_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The final evaluation's lines; the others, most of a long file, are not even parsed."""
    try:
        for line in whole_lines(path):
            if b'"final":true' not in line:
                continue
            found = json.loads(line)
            if isinstance(found, dict) and found.get("final") is True:
                yield found
    except (TriggerctlError, ValueError):
        return


def _prompts(path: Path) -> dict[str, dict[int, str]]:
    """Set → row → what was asked; empty without the file or with a damaged one."""
    try:
        return {
            str(line["set"]): dict(zip(line["row"], map(str, line["prompt"]), strict=True))
            for line in read_lines(path)
        }
    except (InputError, KeyError, TypeError, ValueError):
        return {}
