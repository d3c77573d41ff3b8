"""A sample of the faults of every_fault.py, the same every time.
Run: pytest tests/end_to_end/test_every_fault.py"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("every_fault.py")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.parametrize("what", ["run", "sweep"])
def test_after_a_fault_a_start_in_peace_ends_as_if_nothing_had_been(what: str) -> None:
    """In a process of its own: it holds the clock, and forks."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--what", what, "--sample", "2", "--seed", "3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 faults tried, 2 survived" in done.stdout
