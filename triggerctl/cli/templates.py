"""The templates a new experiment starts from: one folder each, with a `config.json` whose first comment line
says what it is for, and a `sweep.json` where its strategies need overrides."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import triggerctl
from triggerctl.config import jsonc
from triggerctl.config.load import load_config
from triggerctl.errors import InputError
from triggerctl.strategies import canonical_name


@dataclass(frozen=True, slots=True)
class Template:
    """One template; `files` are copied into the new experiment."""

    name: str
    summary: str
    files: tuple[Path, ...]

    @property
    def config(self) -> Path:
        return next(path for path in self.files if path.name == "config.json")

    @property
    def strategies(self) -> tuple[str, ...]:
        """Full names of the strategies it shows: its config's own, then those that its sweep.json lists."""
        named = [load_config(self.config).config.proxy_strategy]
        for path in self.files:
            if path.name == "sweep.json":
                listed = jsonc.read(path).value
                assert isinstance(listed, Mapping)
                named += listed
        return tuple(dict.fromkeys(map(canonical_name, named)))


def templates_folder() -> Path:
    """Where the templates lie: within the installed package, or beside it in a checkout."""
    package = Path(triggerctl.__file__).parent
    shipped = package / "templates"
    return shipped if shipped.is_dir() else package.parent / "templates"


def templates() -> dict[str, Template]:
    """All templates by name: quickstart first, then by the alphabet."""
    found = [_template(path.parent) for path in templates_folder().glob("*/config.json")]
    return {t.name: t for t in sorted(found, key=lambda t: (t.name != "quickstart", t.name))}


def find_template(name: str) -> Template:
    """The template of that name. Raises InputError naming the nearest one."""
    known = templates()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    raise InputError(
        f"there is no template named {name!r}",
        where="--template",
        why="known: " + ", ".join(known),
        mend=f"did you mean {near[0]!r}?" if near else "triggerctl init --list shows them",
    )


def _template(folder: Path) -> Template:
    lines = (folder / "config.json").read_text(encoding="utf-8").splitlines()
    comments = (line.strip().removeprefix("//").strip() for line in lines if line.strip().startswith("//"))
    files = tuple(sorted(path for path in folder.glob("*.json") if path.is_file()))
    return Template(folder.name, next(comments, ""), files)
