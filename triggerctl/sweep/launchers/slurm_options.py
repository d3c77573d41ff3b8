"""What the user asks of Slurm, from `key=value` words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from triggerctl.errors import InputError

WHERE = "--slurm"
DEFAULT_MINUTES = 240
_OURS = frozenset({"array", "chdir", "error", "job-name", "open-mode", "output", "signal", "wait", "wrap"})
"""Options of sbatch that are set for the sweep, and on which its working depends."""
_FLAGS = frozenset({"exclusive", "requeue", "no-requeue", "spread-job", "contiguous", "overcommit"})
"""Options that need no value."""
_SHORT = {"p": "partition", "A": "account", "t": "time", "c": "cpus-per-task", "q": "qos", "C": "constraint"}
_KEY = re.compile(r"[a-z][a-z0-9-]*")
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")


@dataclass(frozen=True, slots=True)
class SlurmOptions:
    """`minutes`: the time limit of a job, after which it is queued again and goes on; `extra`: further
    options of sbatch by their long names, as they are; "" for those that take no value."""

    partition: str | None = None
    account: str | None = None
    minutes: int = DEFAULT_MINUTES
    extra: Mapping[str, str] = field(default_factory=dict)


def parse_slurm_options(words: Sequence[str]) -> SlurmOptions:
    """`partition=gpu`, `time=1-12`, `gres=gpu:a100:1`, `exclusive`, … the last of a key counts.

    Raises InputError for a word that is no such thing, and for options that the sweep sets itself."""
    given: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        key = key.strip().lstrip("-")
        key = _SHORT.get(key, key).replace("_", "-")
        if not _KEY.fullmatch(key) or (not value.strip() and (equals or key not in _FLAGS)):
            raise _unreadable(word, key)
        if key in _OURS:
            raise InputError(
                f"the sweep sets Slurm's option {key!r} itself",
                where=f"{WHERE} {word}",
                mend="leave it out",
            )
        if key == "cpus-per-task" and not re.fullmatch(r"[1-9]\d*", value.strip()):
            raise InputError(f"{value!r} is no number of cores", where=f"{WHERE} {word}", mend=f"{key}=4")
        given[key] = value.strip()
    time = given.pop("time", None)
    return SlurmOptions(
        partition=given.pop("partition", None),
        account=given.pop("account", None),
        minutes=DEFAULT_MINUTES if time is None else parse_minutes(time),
        extra=given,
    )


def parse_minutes(text: str) -> int:
    """A time limit as Slurm writes it, in minutes, rounded up: minutes, minutes:seconds,
    hours:minutes:seconds, days-hours, days-hours:minutes or days-hours:minutes:seconds.

    Raises InputError for anything else, and for no time at all."""
    match = _TIME.fullmatch(text)
    seconds = 0
    if match is not None:
        first, second, third = (int(match[name] or 0) for name in ("first", "second", "third"))
        if match["days"] is not None:
            seconds = int(match["days"]) * 86400 + first * 3600 + second * 60 + third
        elif match["third"] is not None:
            seconds = first * 3600 + second * 60 + third
        else:
            seconds = first * 60 + second
    if seconds == 0:
        raise InputError(
            f"{text!r} is not a time limit",
            where=f"{WHERE} time={text}",
            mend="minutes, as in time=90, or Slurm's own hours:minutes:seconds and days-hours:minutes",
        )
    return -(-seconds // 60)


def _unreadable(word: str, key: str) -> InputError:
    near = difflib.get_close_matches(key, _FLAGS, n=1)
    hint = f"did you mean {near[0]}? Else key=value" if near else "key=value"
    return InputError(
        f"{word!r} is not an option of sbatch",
        where=f"{WHERE} {word}",
        mend=f"{hint} by the long names of sbatch, as in partition=gpu, time=120 or mem=16G",
    )
