"""Arguments and options that several commands share, and how their words become values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triggerctl.cli.command import hyphenated
from triggerctl.errors import InputError

if TYPE_CHECKING:
    from triggerctl.config.overrides import Override

Experiment = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="A folder under the root, or a path to one.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a key of config.json for this once; may be repeated."
    ),
]
Seed = Annotated[str | None, typer.Option("--seed", metavar="N", help="Instead of the config's seed.")]
Strategy = Annotated[
    str | None, typer.Option("--strategy", metavar="NAME", help="Instead of the config's proxy_strategy.")
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, metavar="N", help="CPU threads of a run, at most.")
]
GpusPerRun = Annotated[
    int,
    typer.Option(
        "--gpus-per-run",
        min=1,
        metavar="N",
        help="Train each run on N GPUs together; with --device cpu, by N processes.",
    ),
]
NoCache = Annotated[
    bool,
    typer.Option("--no-cache", help="Compute all anew: share no tokens, base passes or planes with others."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
DontOverwrite = Annotated[
    bool,
    typer.Option(
        "--dont-overwrite", help="Where results of other settings lie, leave them alone and train nothing."
    ),
]

COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Globals:
    """What holds for any command. `root`: where experiments lie, as given, None for the default; `line`: the
    whole command line."""

    root: Path | None
    debug: bool
    line: tuple[str, ...]

    def line_without(self, *flags: str) -> list[str]:
        """The command as it was typed, without these flags."""
        return [*self.line[:1], *(word for word in self.line[1:] if hyphenated(word) not in flags)]

    def suggest(self, command: str, *words: str) -> list[str]:
        """A command that the user may type next, for the same root."""
        return ["triggerctl", command, *words, *(["--root", str(self.root)] if self.root is not None else [])]


def overrides(
    settings: Sequence[str] | None, *, seed: str | None = None, strategy: str | None = None
) -> tuple[Override, ...]:
    """What the command line sets, in the order given; --seed and --strategy win over --set.

    Raises InputError for a key that is unknown or a value of the wrong type."""
    from triggerctl.config.overrides import Override, parse_override

    made = [parse_override(setting, origin=COMMAND_LINE) for setting in settings or ()]
    if seed is not None:
        made.append(Override(("seed",), _seed(seed, "--seed"), COMMAND_LINE, f"--seed {seed}"))
    if strategy is not None:
        made.append(Override(("proxy_strategy",), strategy, COMMAND_LINE, f"--strategy {strategy}"))
    return tuple(made)


def as_typed(
    settings: Sequence[str] | None, *, seed: str | None = None, strategy: str | None = None
) -> list[str]:
    """The words of these overrides, for a command that is to do the same."""
    typed = [("--seed", seed), ("--strategy", strategy), *(("--set", each) for each in settings or ())]
    return [word for option, value in typed if value is not None for word in (option, value)]


def words(given: Sequence[str] | None, option: str) -> list[str]:
    """A repeated option's values with commas taken apart, each once, in the order given.

    Raises InputError where the option stands there and names nothing, as with a shell's unset variable."""
    parts = [part.strip() for word in given or () for part in word.split(",")]
    found = list(dict.fromkeys(part for part in parts if part))
    if given and not found:
        raise InputError(f"{option} names nothing", where=option, mend="give it a value, or leave it out")
    return found


def seeds(given: Sequence[str] | None) -> list[int]:
    """The seeds of ``--seeds 1 5 42`` or ``--seeds 1,5,42``. Raises InputError for what is no whole
    number."""
    return list(dict.fromkeys(_seed(word, "--seeds") for word in words(given, "--seeds")))


def _seed(word: str, option: str) -> int:
    if not (word.isascii() and word.isdecimal() and len(word) < 20) or int(word) >= 2**63:
        raise InputError(
            f"{word!r} is not a seed",
            where=option,
            why="a seed is a whole number from 0",
            mend=f"{option} 1 5 42" if option == "--seeds" else f"{option} 1",
        )
    return int(word)
