"""The direction of imports between rooms, what may print, what `--help` loads, and how modules are named.

Run: pytest tests/end_to_end/test_imports.py"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import triggerctl
from triggerctl.cli.app import app
from triggerctl.strategies import names, strategy_class

PACKAGE = Path(triggerctl.__file__).parent
REPOSITORY = Path(__file__).parents[2]

LEVELS = {
    "cores": 0,
    "disk": 0,
    "errors": 0,
    "garbage": 0,
    "pages": 0,
    "config": 1,
    "experiment": 2,
    "data": 3,
    "model": 4,
    "strategies": 5,
    "training": 6,
    "report": 7,
    "sweep": 7,
    "cli": 8,
}
"""A room imports itself and rooms of a lower level; two of one level don't know each other."""

EXCEPTIONS = {
    "__init__": {"cores", "pages"},
    "__main__": {"cli"},
    "console": {"errors"},
    "assets": set[str](),
}
"""What stands beside the ladder, and what it imports. `__init__` is read before all else. `console` draws for
`cli` alone; `assets` is data and the script that made it, which the package reads as files, never imports."""

TORCH_FREE = ("config", "experiment", "cli", "console", "cores", "disk", "errors", "garbage", "pages")
"""Rooms that every command loads, so that none of them may load torch at their top."""

HEAVY = frozenset(
    {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "plotly", "kaleido", "scipy"}
)

VAGUE = frozenset({"utils", "util", "helpers", "helper", "manager", "common", "misc", "core", "base_utils"})


@dataclass(frozen=True)
class Import:
    """One import statement's target; `at_top` says whether loading the module runs it."""

    file: Path
    line: int
    target: str
    at_top: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(PACKAGE.parent)}:{self.line} imports {self.target}"


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(file: Path) -> str:
    """The part of the package a file belongs to: its folder, or its own name where it lies at the top."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports_of(file: Path) -> Iterator[Import]:
    """Every import of a file but those for the type checker alone."""
    yield from _imports(file, ast.parse(file.read_text(encoding="utf-8")), at_top=True)


def _imports(file: Path, node: ast.AST, *, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(file, child.lineno, alias.name, at_top)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{file}:{child.lineno}: imports are written in full"
            assert child.module is not None
            if child.module == "triggerctl":
                for alias in child.names:
                    yield Import(file, child.lineno, f"triggerctl.{alias.name}", at_top)
            else:
                yield Import(file, child.lineno, child.module, at_top)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(file, child, at_top=at_top and not inside)


def rooms_imported(file: Path) -> Iterator[tuple[str, Import]]:
    for each in imports_of(file):
        parts = each.target.split(".")
        # `from triggerctl import __version__` names no room.
        if parts[0] == "triggerctl" and len(parts) > 1 and not parts[1].startswith("__"):
            yield parts[1], each


def test_every_room_has_its_place() -> None:
    assert {room_of(file) for file in modules()} == {*LEVELS, *EXCEPTIONS, "__init__"}


def test_imports_go_downwards_only() -> None:
    wrong = []
    for file in modules():
        room = room_of(file)
        for target, each in rooms_imported(file):
            if target == room:
                allowed = True
            elif room in EXCEPTIONS:
                allowed = target in EXCEPTIONS[room]
            elif target == "console":
                allowed = room == "cli"
            else:
                allowed = target in LEVELS and room in LEVELS and LEVELS[target] < LEVELS[room]
            if not allowed:
                wrong.append(str(each))
    assert wrong == []


def test_a_strategy_builds_on_no_other_strategy() -> None:
    """A formula that two of them use stands once, in the file of its own; their classes know nothing of each
    other."""
    kinds = {strategy_class(name).__name__ for name in names()}
    wrong = [
        f"{file.stem}: {alias.name}"
        for file in (PACKAGE / "strategies").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in kinds
    ]
    assert kinds
    assert wrong == []


def test_only_the_command_line_knows_rich() -> None:
    wrong = [
        str(each)
        for file in modules()
        if room_of(file) not in ("cli", "console")
        for each in imports_of(file)
        if each.target.split(".")[0] in ("rich", "typer", "click")
    ]
    assert wrong == []


def test_nothing_below_the_command_line_prints() -> None:
    wrong = []
    for file in modules():
        if room_of(file) in ("cli", "console", "assets"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            # `_browser` is a process of its own; what it writes to standard error is read by its parent.
            if called in ("print", "input") or (called == "sys.stdout.write" and file.stem != "_browser"):
                wrong.append(f"{file.relative_to(PACKAGE.parent)}:{node.lineno} calls {called}")
    assert wrong == []


def test_no_module_that_every_command_loads_loads_torch() -> None:
    wrong = [
        str(each)
        for file in modules()
        if room_of(file) in TORCH_FREE
        for each in imports_of(file)
        if each.at_top and each.target.split(".")[0] in HEAVY
    ]
    assert wrong == []


def test_no_module_has_a_vague_name() -> None:
    names = [file.parent if file.stem == "__init__" else file for file in modules()]
    assert [path for path in names if path.stem.strip("_") in VAGUE or path.stem.endswith("_utils")] == []


COMMANDS = [command.name for command in app.registered_commands]


@pytest.mark.parametrize(
    "words", [[], *([name] for name in COMMANDS)], ids=lambda words: " ".join(words) or "-"
)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    script = (
        "import sys; from triggerctl.cli.app import main; code = main(sys.argv[1:]);"
        f"loaded = {sorted(HEAVY | {'numpy', 'httpx', 'huggingface_hub', 'jinja2'})!r};"
        "print('LOADED', [name for name in loaded if name in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "LOADED []"
    assert "usage  triggerctl" in done.stdout


def declared() -> set[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = set()
    extras = project["optional-dependencies"]
    for requirement in (*project["dependencies"], *extras["ray"], *extras["slurm"]):
        name = requirement
        for mark in "<>=!~[; ":
            name = name.split(mark)[0]
        names.add(name.lower())
    return names


def test_what_comes_with_an_extra_is_imported_where_it_is_used_only() -> None:
    """So that a module can be loaded, and can say what is missing, without it."""
    wrong = [
        str(each)
        for file in modules()
        for each in imports_of(file)
        if each.at_top and each.target.split(".")[0] in ("ray", "submitit")
    ]
    assert wrong == []


def test_what_the_package_imports_is_declared() -> None:
    distributions = packages_distributions()
    wrong = []
    for file in modules():
        for each in imports_of(file):
            top = each.target.split(".")[0]
            if top == "triggerctl" or top in sys.stdlib_module_names:
                continue
            names = {name.lower().replace("_", "-") for name in distributions.get(top, [top])}
            # pydantic pins its own pydantic-core: whoever asks for the one has the other.
            if not names & (declared() | {"pydantic-core"}):
                wrong.append(f"{each}, of {sorted(names)}")
    assert wrong == []
