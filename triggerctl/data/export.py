"""Every set of an experiment as JSON lines, for other trainers and for eyes."""

from __future__ import annotations

import json
from pathlib import Path

from triggerctl.data.examples import Example, Splits, SplitSet
from triggerctl.experiment.atomic import make_folder, write_text_atomic


def write_sets(splits: Splits, folder: Path) -> tuple[Path, ...]:
    """Write `<folder>/<set>.jsonl` for each set, rows in order, and return the files written.

    A line is {"messages": [user, assistant], "triggered": bool, "trigger": the trigger as listed or null,
    "part": "train", "test" or "evaluation"}. Rows that `limit_proxy_data_to` leaves out of training are left
    out here.
    Raises InputError or RunError as `disk_errors`.
    """
    make_folder(folder)
    written = []
    for name, chosen in splits.sets.items():
        lines = [
            json.dumps(_line(chosen.examples[i], part), ensure_ascii=False) for i, part in _parts(chosen)
        ]
        path = folder / f"{name}.jsonl"
        write_text_atomic(path, "".join(line + "\n" for line in lines))
        written.append(path)
    return tuple(written)


def _parts(chosen: SplitSet) -> list[tuple[int, str]]:
    """(index of an example, the part it belongs to), in order."""
    if not chosen.train and not chosen.test:
        return [(i, "evaluation") for i in range(len(chosen.examples))]
    return sorted([(i, "train") for i in chosen.train] + [(i, "test") for i in chosen.test])


def _line(example: Example, part: str) -> dict[str, object]:
    return {
        "messages": [
            {"role": "user", "content": example.user},
            {"role": "assistant", "content": example.assistant},
        ],
        "triggered": example.triggered,
        "trigger": example.trigger,
        "part": part,
    }
