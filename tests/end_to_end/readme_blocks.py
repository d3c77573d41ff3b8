"""README.md as blocks: the commands it gives, and the output it shows below them.

A block of commands is fenced as ``bash``. A comment `<!-- needs: … -->` on the line above says that it can't
run everywhere. A block fenced as ``text`` under `<!-- output: from "…" to "…" -->` shows what the commands
above print: the lines from the first that starts with the one text to the next that starts with the other.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import triggerctl

README = Path(__file__).parents[2] / "README.md"
ASSETS = Path(triggerctl.__file__).parent / "assets"
TIMEOUT = 900
"""Seconds a block may take: minutes on two quiet cores, more where they are shared."""

_BLOCK = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_EXCERPT = re.compile(r'output: from "(?P<first>[^"]*)" to "(?P<last>[^"]*)"')


@dataclass(frozen=True)
class Shown:
    """An excerpt of output as README.md shows it; `start` is where its text stands in the file."""

    first: str
    last: str
    text: str
    start: int

    def excerpt(self, output: str) -> str:
        """The same excerpt of what was really printed."""
        lines = [line.rstrip() for line in output.splitlines()]
        begin = next(i for i, line in enumerate(lines) if line.startswith(self.first))
        end = next(i for i, line in enumerate(lines) if i >= begin and line.startswith(self.last))
        return "\n".join(lines[begin : end + 1]) + "\n"


@dataclass(frozen=True)
class Commands:
    """A block of commands, what it needs, if anything, and the output shown below it."""

    text: str
    line: int
    needs: str | None
    shown: tuple[Shown, ...]

    def programs(self) -> list[list[str]]:
        """Every program called, as its words: lines and the parts between `&&`."""
        lines = self.text.replace("\\\n", " ").splitlines()
        parts = [part for line in lines for part in line.split(" && ")]
        return [words for part in parts if (words := shlex.split(part, comments=True))]

    def without_installing(self) -> str:
        """The commands as a script, letter for letter but for `pip install …`, which is done already."""
        return re.sub(r"pip install [^&\n]*(&& )?", "", self.text)

    def run(self, folder: Path) -> str:
        """Run the block in `folder` with no network, and return what it prints.

        Raises AssertionError, with all it printed, when a command fails."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRIGGERCTL")}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        cache = str(folder / ".cache")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.without_installing()],
            cwd=folder,
            env=kept | {"PATH": path, "HF_HUB_OFFLINE": "1", "TRIGGERCTL_CACHE": cache},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, f"README.md:{self.line}\n{done.stdout}{done.stderr}"
        return done.stdout


def read_blocks(text: str) -> list[Commands]:
    """The blocks of commands in the text of README.md, in order."""
    found: list[Commands] = []
    for match in _BLOCK.finditer(text):
        note = match["note"] or ""
        if match["kind"] == "bash":
            needs = note.removeprefix("needs: ") if note.startswith("needs: ") else None
            line = text.count("\n", 0, match.start("text")) + 1
            found.append(Commands(match["text"], line, needs, ()))
        elif excerpt := _EXCERPT.fullmatch(note):
            shown = Shown(excerpt["first"], excerpt["last"], match["text"], match.start("text"))
            last = found[-1]
            found[-1] = Commands(last.text, last.line, last.needs, (*last.shown, shown))
    return found


def bring_own_model_and_data(folder: Path) -> None:
    """Put into `folder` what README.md calls the reader's own: a chat model and rows; here the embedded."""
    shutil.copytree(ASSETS / "models" / "tiny", folder / "my_model")
    lines = (ASSETS / "data" / "instructions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[::5]]
    (folder / "my_rows.json").write_text(json.dumps(rows), encoding="utf-8")
