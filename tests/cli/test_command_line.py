"""How the command line is read. Run: pytest tests/cli/test_command_line.py"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.core import TyperOption
from typer.main import get_command

from triggerctl import __version__
from triggerctl.cli.app import app, main
from triggerctl.cli.command import Group, globals_first, spread
from triggerctl.cli.options import seeds, words
from triggerctl.errors import InputError

COMMANDS = ("init", "validate", "run", "sweep", "report", "status")
HEAVY = ("torch", "transformers", "plotly", "pydantic", "scipy", "peft", "numpy", "jinja2")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command: str) -> None:
    program = (
        "import sys; from triggerctl.cli.app import main; "
        f"code = main({[command, '--help'] if command else ['--help']!r}); "
        f"print('IMPORTED', [name for name in {HEAVY!r} if name in sys.modules], code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.rstrip().endswith("IMPORTED [] 0")
    assert done.stderr == ""


def test_ctrl_c_while_the_program_loads_shows_no_traceback() -> None:
    program = (
        "import sys\n"
        "class CtrlC:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'triggerctl.cli.app':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, CtrlC())\n"
        "from triggerctl.__main__ import program\n"
        "sys.exit(program())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_shows_an_example_of_its_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"$ triggerctl {command} " in said
    assert "Options" in said


def test_no_words_show_the_help_with_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {command} " in said for command in COMMANDS)


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "triggerctl", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == f"triggerctl {__version__}"


def _sweep_options() -> list[TyperOption]:
    group = get_command(app)
    assert isinstance(group, Group)
    return [param for param in group.commands["sweep"].params if isinstance(param, TyperOption)]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("exp --seeds 1 5 42", "exp --seeds 1 --seeds 5 --seeds 42"),
        ("--seeds 1 5 42 exp", "--seeds 1 --seeds 5 --seeds 42 exp"),
        ("--seeds 1,5,42 exp", "--seeds 1,5,42 exp"),
        ("--seeds 1 --seeds 5 exp", "--seeds 1 --seeds 5 exp"),
        ("exp --seeds 1 --strategies naive kl", "exp --seeds 1 --strategies naive --strategies kl"),
        ("--seeds=1 5 exp", "--seeds=1 --seeds 5 exp"),
        ("--strategies naive kl exp --dry-run", "--strategies naive --strategies kl --dry-run exp"),
        ("exp --device cpu --seeds 1 5", "exp --device cpu --seeds 1 --seeds 5"),
        ("--seeds 1 5 42", "--seeds 1 --seeds 5 --seeds 42"),
        ("exp --seeds 1 x", "exp --seeds 1 --seeds x"),
        ("--seeds 1 -- exp", "--seeds 1 -- exp"),
        ("exp --seeds -1 2", "exp --seeds -1 --seeds 2"),
    ],
)
def test_an_option_takes_several_words(given: str, read: str) -> None:
    said = spread(given.split(), _sweep_options(), needs_word=True)
    assert sorted(said) == sorted(read.split())
    assert [word for word in said if word.isdecimal()] == [word for word in read.split() if word.isdecimal()]


def test_an_option_of_two_words_takes_none_of_the_commands() -> None:
    group = get_command(app)
    assert isinstance(group, Group)
    options = [param for param in group.commands["report"].params if isinstance(param, TyperOption)]
    given = ["--compare", "naive", "kl", "--format", "html", "demo"]
    assert spread(given, options, needs_word=True) == given


def test_global_options_may_stand_after_the_command() -> None:
    assert globals_first(["run", "exp", "--root", "there", "--debug"]) == [
        "--root",
        "there",
        "--debug",
        "run",
        "exp",
    ]
    assert globals_first(["run", "--root=there", "exp"]) == ["--root=there", "run", "exp"]


def test_seeds_and_strategies_come_with_commas_or_without() -> None:
    assert seeds(["1", "5", "42"]) == seeds(["1,5,42"]) == seeds(["1, 5", "42,1"]) == [1, 5, 42]
    assert words(["naive,kl"], "--strategies") == words(["naive", "kl"], "--strategies") == ["naive", "kl"]


@pytest.mark.parametrize("word", ["x", "1.5", "-1", "1,x", "²", str(2**63), "1" * 5000])
def test_a_seed_that_is_no_whole_number_is_refused(word: str) -> None:
    with pytest.raises(InputError, match="is not a seed"):
        seeds([word])


def test_underscores_in_an_option_count_as_hyphens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "nowhere", "--dont_overwrite"]) == 2
    assert "no experiment nowhere" in capsys.readouterr().err
    assert main(["validate", "nowhere", "--config_only"]) == 2


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("run exp --sed 1", "--sed"),
        ("runn exp", "runn"),
        ("run", "EXPERIMENT"),
        ("run exp --threads many", "--threads"),
        ("run one two", "two"),
    ],
)
def test_a_mistyped_line_is_one_block_that_names_the_word(
    line: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error")
    assert what in said.err.splitlines()[0]
    assert "Traceback" not in said.err


def test_a_defect_is_named_as_one_and_its_traceback_shown_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A root that can't be listed stands for whatever we did not foresee."""

    def broken(self: Path) -> bool:
        raise ZeroDivisionError("no such luck")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_file", broken)
    assert main(["run", "exp"]) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError: no such luck" in said
    assert "defect" in said
    assert "--debug" in said
    assert "Traceback" not in said
    assert main(["run", "exp", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
