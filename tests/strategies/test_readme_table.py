"""README.md's table of strategies is what the strategies say of themselves.

pytest tests/strategies/test_readme_table.py"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from triggerctl.strategies import names, strategy_class
from triggerctl.strategies.alignment_plane import PLANE_OPTIONS

TEXT = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECTION = TEXT[TEXT.index("\n## Strategies\n") : TEXT.index("\n## Files\n")]


def keys(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def row_cells(line: str) -> list[str]:
    """The cells of a line of a table; a bar within a cell is written with a backslash."""
    parts = re.split(r"(?<!\\)\|", line.strip().strip("|"))
    return [part.strip().replace("\\|", "|") for part in parts]


ROWS = {
    keys(row[0])[0]: row
    for row in (row_cells(line) for line in SECTION.splitlines() if line.startswith("| `"))
}


def test_it_has_a_row_for_every_strategy_and_no_other() -> None:
    assert sorted(ROWS) == sorted(names())


def test_the_options_of_the_plane_are_those_that_its_strategies_share() -> None:
    sentence = SECTION[SECTION.index("*The plane's* options are") :]
    assert sorted(keys(sentence[: sentence.index(".")])) == sorted(PLANE_OPTIONS)


@pytest.mark.parametrize("name", names())
def test_its_row_is_what_the_strategy_says(name: str) -> None:
    strategy = strategy_class(name)
    named, formula, options, paper = ROWS[name]
    assert keys(named) == [name, *strategy.aliases]
    assert formula == strategy.formula
    plane = PLANE_OPTIONS if options.startswith("the plane's") else frozenset[str]()
    assert sorted([*keys(options), *plane]) == sorted(strategy.reads)
    assert paper == cited(strategy.paper)


def cited(paper: str | None) -> str:
    """A paper as the table names it: its authors and year, linked where it is on arXiv."""
    if paper is None:
        return "–"
    authors, place = paper.split(", ", 1)
    number = place.removeprefix("arXiv:")
    return authors if number == place else f"[{authors}](https://arxiv.org/abs/{number})"
