"""Every command of README.md runs, in its order, in one empty folder, and prints what README.md shows.

Blocks that need more than a laptop are read by the commands' parsers, and their configurations checked.
Run: pytest tests/end_to_end/test_readme.py"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from readme_blocks import README, Commands, bring_own_model_and_data, read_blocks
from typer.main import get_command

from triggerctl.cli.app import app, main

REPOSITORY = README.parent
PROGRAMS = {"pip", "pytest", "python", "triggerctl"}

TEXT = README.read_text(encoding="utf-8")
BLOCKS = read_blocks(TEXT)


def name_of(block: Commands) -> str:
    return f"line {block.line}"


def calls(block: Commands) -> list[list[str]]:
    """The words of each `triggerctl …` of a block, without the program's name."""
    return [words[1:] for words in block.programs() if words[0] == "triggerctl"]


def test_readme_opens_with_the_way_from_nothing_to_a_report() -> None:
    assert BLOCKS[0].text == (
        "pip install -e . && triggerctl init demo --template quickstart && triggerctl run demo "
        "&& triggerctl report demo\n"
    )


def test_every_block_of_commands_calls_known_programs() -> None:
    assert len(BLOCKS) >= 6
    for block in BLOCKS:
        assert {words[0] for words in block.programs()} <= PROGRAMS, block.text
    used = {words[0] for block in BLOCKS for words in calls(block)}
    assert used == {command.name for command in app.registered_commands}


def test_what_is_installed_is_this_project_and_an_extra_it_has() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installs = [words for block in BLOCKS for words in block.programs() if words[0] == "pip"]
    assert all(words[:-1] == ["pip", "install", "-e"] for words in installs)
    targets = [re.fullmatch(r"\.(?:\[(.+)\])?", words[-1]) for words in installs]
    assert None not in targets
    extras = {extra for target in targets if target and target[1] for extra in target[1].split(",")}
    assert extras == set(project["optional-dependencies"])


def test_pictures_and_files_that_are_linked_are_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    assert [link for link in links if "://" not in link and not (REPOSITORY / link).is_file()] == []


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_every_command_is_one_the_program_reads(block: Commands) -> None:
    group = get_command(app)
    for words in calls(block):
        command = group.commands[words[0]]  # type: ignore[attr-defined]
        with group.make_context("triggerctl", []) as parent:
            command.make_context(words[0], words[1:], parent=parent)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.needs], ids=name_of)
def test_what_needs_a_hub_or_a_gpu_has_configurations_that_hold(
    block: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIGGERCTL_ROOT", raising=False)
    begins = {words[1]: words for each in BLOCKS for words in calls(each) if words[0] == "init"}
    for words in calls(block):
        if not Path("experiments", words[1]).exists():
            assert main(begins[words[1]]) == 0
        if words[0] != "init":
            assert main(["validate", "--config-only", words[1]]) == 0
    assert "error" not in capsys.readouterr().err


@pytest.mark.slow
def test_every_command_runs_as_written_and_prints_what_is_shown(tmp_path: Path) -> None:
    bring_own_model_and_data(tmp_path)
    for block in BLOCKS:
        if block.needs or not calls(block):
            continue
        output = block.run(tmp_path)
        for shown in block.shown:
            assert shape(shown.excerpt(output)) == shape(shown.text), f"README.md:{block.line}"


def shape(output: str) -> list[str]:
    """What is the same on every machine: tables' headings, and the word each other line opens with."""
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    return [
        line if below.startswith("──") else line.split()[0]
        for line, below in zip(lines, [*lines[1:], ""], strict=True)
        # An interval stands in a line of its own, and opens with a number.
        if not line[0].isdigit()
    ]
