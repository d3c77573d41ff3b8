"""How OpenMP's threads wait: they spin for a moment where the cores are idle, sleep where others want them or
it can't be told, and do as they are told. Run: pytest tests/test_cores.py"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from triggerctl.cores import ASKED, ASLEEP, SHORT, SPIN_COUNT, available_cores, idle_cores, waiting
from triggerctl.pages import LARGE_PAGES, MEMORY

SPINNING = {SPIN_COUNT: SHORT}


@pytest.mark.parametrize(
    ("available", "idle", "added"),
    [
        pytest.param(2, 2, SPINNING, id="all idle"),
        pytest.param(2, 1, ASLEEP, id="another process is at work"),
        pytest.param(4, 30, SPINNING, id="few cores of a large machine"),
        pytest.param(2, -3, ASLEEP, id="more at work than there are cores"),
        pytest.param(2, None, ASLEEP, id="it can't be told"),
    ],
)
def test_threads_spin_where_as_many_cores_are_idle_as_may_be_used(
    available: int, idle: int | None, added: dict[str, str]
) -> None:
    assert waiting({}, available=available, idle=idle) == added


def test_what_a_process_said_itself_binds_none_that_it_starts() -> None:
    assert waiting(SPINNING, available=2, idle=1) == ASLEEP
    assert waiting(SPINNING, available=2, idle=2) == SPINNING


@pytest.mark.parametrize("name", sorted(ASKED))
@pytest.mark.parametrize("idle", [0, 2, None])
def test_who_starts_the_process_decides(name: str, idle: int | None) -> None:
    assert waiting({name: "1"}, available=2, idle=idle) == {}


@pytest.mark.parametrize(("running", "wanted_by_others"), [(1, 0), (2, 1), (9, 8), (0, 0)])
def test_a_core_is_idle_that_nobody_else_wants(running: int, wanted_by_others: int, tmp_path: Path) -> None:
    (tmp_path / "loadavg").write_text(f"3.10 2.20 1.00 {running}/345 22345\n")
    assert idle_cores(tmp_path / "loadavg") == (os.cpu_count() or 1) - wanted_by_others


@pytest.mark.parametrize("text", [None, "", "0.1 0.2 0.3", "0.1 0.2 0.3 one/two 5", "\udcff"])
def test_where_the_kernel_says_nothing_it_can_t_be_told(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "loadavg").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert idle_cores(tmp_path / "loadavg") is None


def test_it_is_said_before_pytorch_is_loaded_and_to_whom_one_starts() -> None:
    script = "import sys, triggerctl; assert 'torch' not in sys.modules; import os; print(triggerctl.ADDED,"
    script += " all(os.environ[name] == value for name, value in triggerctl.ADDED.items()))"
    around = {name: value for name, value in os.environ.items() if name not in ASKED | MEMORY.keys()}
    said = subprocess.check_output([sys.executable, "-c", script], env=around, text=True)
    assert said in (f"{SPINNING | MEMORY} True\n", f"{ASLEEP | MEMORY} True\n")


def test_what_who_starts_it_says_of_large_pages_is_left_so() -> None:
    script = (
        f"import triggerctl, os; print(triggerctl.ADDED.get({LARGE_PAGES!r}), os.environ[{LARGE_PAGES!r}])"
    )
    around = {**os.environ, LARGE_PAGES: "0"}
    assert subprocess.check_output([sys.executable, "-c", script], env=around, text=True) == "None 0\n"


def test_no_more_cores_than_there_are() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
