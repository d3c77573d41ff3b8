"""Nothing but `triggerctl/disk.py` touches files of experiments and of the cache, so that what it is told of
is all that can go wrong there. Run: pytest tests/end_to_end/test_one_way_to_the_disk.py"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import triggerctl

PACKAGE = Path(triggerctl.__file__).parent

OPERATIONS = frozenset(
    {
        *(
            "open",
            "read_text",
            "read_bytes",
            "write_text",
            "write_bytes",
            "rename",
            "renames",
            "unlink",
            "rmdir",
        ),
        *(
            "mkdir",
            "makedirs",
            "removedirs",
            "touch",
            "symlink_to",
            "hardlink_to",
            "link",
            "symlink",
            "truncate",
        ),
        *("fsync", "utime", "chmod", "rmtree", "copyfile", "copy2", "copytree", "mkdtemp", "mkstemp"),
        *("TemporaryDirectory", "NamedTemporaryFile", "FileHandler", "_LogFile", "save_file", "load_file"),
        *("safe_open", "save_pretrained", "load_peft_weights", "savez", "dump", "write_image", "write_html"),
    }
)
"""By the name that is called, whatever it belongs to."""
OF_MODULES = frozenset(
    {
        *("torch.save", "torch.load", "numpy.load", "numpy.save", "json.load"),
        *("os.replace", "os.remove", "shutil.move"),
    }
)

EXCEPTIONS = {
    "data/source.py": "the user's data, and what ships with the package",
    "cores.py": "/proc/loadavg",
    "model/processor.py": "/proc/cpuinfo",
    "model/identity.py": "the user's model folder",
    "model/publish.py": "an upload is put together in a temporary folder",
    "experiment/process.py": "/proc",
    "report/_browser.py": "a drawing process's own temporary folder",
    "report/images.py": "a drawing process's own temporary folder",
    "report/page.py": "what ships with the package",
    "training/follower.py": "a further process's output, in a temporary folder",
    "training/followers.py": "the same",
    "cli/app.py": "/dev/null",
    "cli/init.py": "the templates that ship with the package",
    "cli/templates.py": "the same",
}
"""Files whose other files are no experiment's and no cache's. What they write there goes through `disk`."""


def told_names(tree: ast.AST) -> set[str]:
    """The names that stand for what `disk` has opened or was told of."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.withitem) and is_told(node.context_expr, set()):
            names |= {part.id for part in ast.walk(node.optional_vars or node) if isinstance(part, ast.Name)}
        if isinstance(node, ast.Assign) and is_told(node.value, set()):
            names |= {part.id for part in node.targets if isinstance(part, ast.Name)}
    return names


def is_told(value: ast.AST, names: set[str]) -> bool:
    if isinstance(value, ast.Name):
        return value.id in names
    return isinstance(value, ast.Call) and ast.unparse(value.func).startswith("disk.")


def direct(path: Path) -> Counter[str]:
    """What a file calls that opens or changes files, past `disk`."""
    found: Counter[str] = Counter()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = told_names(tree)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        last = name.rpartition(".")[2]
        # Of texts, `replace` takes two arguments; of paths, one.
        is_operation = last in OPERATIONS or name in OF_MODULES
        is_operation |= last == "replace" and len(call.args) == 1 and not call.keywords
        belongs_to = call.func.value if isinstance(call.func, ast.Attribute) else call.func
        if is_operation and not any(is_told(part, names) for part in (call, belongs_to, *call.args)):
            found[name] += 1
    return found


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name != "disk.py" and not name.startswith("assets/"):
            yield name, path


@pytest.mark.parametrize("name", [name for name, _ in modules()])
def test_files_are_opened_and_changed_through_one_module(name: str) -> None:
    found = direct(PACKAGE / name)
    if name in EXCEPTIONS:
        assert found, f"{name} is no exception any more"
    else:
        assert not found


def test_every_exception_is_there() -> None:
    assert set(EXCEPTIONS) <= {name for name, _ in modules()}
