"""What ARCHITECTURE.md says: its worked example works as it stands, and the files that it names are there.

pytest tests/end_to_end/test_architecture_page.py"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import triggerctl

PACKAGE = Path(triggerctl.__file__).parent
REPOSITORY = PACKAGE.parent
PAGE = (PACKAGE / "ARCHITECTURE.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_worked_example_is_a_strategy_with_its_test(tmp_path: Path) -> None:
    strategy, test = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len((strategy + test).splitlines()) <= 60
    shutil.copytree(PACKAGE, tmp_path / "triggerctl", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests/strategies").mkdir(parents=True)
    for name in ("tests/small_models.py", "tests/conftest.py", "pyproject.toml"):
        shutil.copyfile(REPOSITORY / name, tmp_path / name)
    (tmp_path / "triggerctl/strategies/l2_start.py").write_text(strategy, encoding="utf-8")
    (tmp_path / "tests/strategies/test_l2_start.py").write_text(test, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "TRIGGERCTL_ROOT": str(tmp_path / "experiments"),
    }
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "tests/strategies/test_l2_start.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout + tested.stderr
    told = subprocess.run(
        [sys.executable, "-c", "from triggerctl.strategies import names; print(*names())"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "l2_start" in told.stdout.split(), told.stderr


def test_every_file_it_names_is_there() -> None:
    named = set(re.findall(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.(?:py|md|json))`", PAGE))
    expected = {name for name in named if "/" in name and "l2_start" not in name}
    assert len(expected) > 15
    missing = [
        name for name in expected if not (PACKAGE / name).is_file() and not (REPOSITORY / name).is_file()
    ]
    assert missing == []


def test_its_diagram_has_every_room() -> None:
    diagram = PAGE.partition("```\n")[2].partition("```")[0]
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms - set(re.findall(r"[a-z]+", diagram)) == set()
