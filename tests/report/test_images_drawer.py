"""One browser for many runs' figures, however it or its owner ends.

pytest tests/report/test_images_drawer.py"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import plotly.graph_objects as go
import psutil
import pytest

from triggerctl.report import images
from triggerctl.report.images import Drawer, write_images


def has_chrome() -> bool:
    from choreographer.browsers.chromium import Chromium

    return Chromium.find_browser(skip_local=False) is not None


needs_chrome = pytest.mark.skipif(not has_chrome(), reason="there is no Chrome here")


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where drawing processes have their folders. A short path: Chrome opens a socket in there."""
    with tempfile.TemporaryDirectory(prefix="t-", ignore_cleanup_errors=True) as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)


def figure(height: int = 300) -> go.Figure:
    return go.Figure(go.Scatter(x=[1, 2], y=[3, 4]), layout={"width": 400, "height": height})


def below(pid: int) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    return found


def whose_command_says(text: str, pid: int) -> list[psutil.Process]:
    """The processes below another with that text in their command. One that ends meanwhile, or has ended and
    wasn't waited for yet, as a browser's helpers are at times, has no command and isn't one of them."""
    found = []
    for process in below(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(text in word for word in process.cmdline()):
                found.append(process)
    return found


def drawing_process(pid: int) -> psutil.Process:
    [found] = whose_command_says("_browser.py", pid)
    return found


def ended(processes: list[psutil.Process], seconds: float = 30) -> bool:
    """Whether all of them end before long."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


@pytest.fixture
def drawer() -> Iterator[Drawer]:
    with Drawer() as made:
        yield made


def test_an_ended_process_that_nobody_waited_for_is_in_no_ones_way() -> None:
    with subprocess.Popen(["/bin/true"]) as ended_already:
        zombie = psutil.Process(ended_already.pid)
        while zombie.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert whose_command_says("true", os.getpid()) == []


@pytest.mark.slow
@needs_chrome
def test_one_browser_draws_job_after_job_and_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    with Drawer() as drawer:
        assert write_images({tmp_path / "a.png": figure()}, drawer=drawer) is None
        drawing = drawing_process(os.getpid())
        browsers = [drawing, *below(drawing.pid)]
        assert (
            write_images({tmp_path / "b.svg": figure(), tmp_path / "c.png": figure()}, drawer=drawer) is None
        )
        assert drawing_process(os.getpid()) == drawing
        assert drawing.is_running()
    assert ended(browsers)
    assert list(temporary.iterdir()) == []
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "c.png").read_bytes()


@pytest.mark.slow
@needs_chrome
@pytest.mark.parametrize("victim", ["browser", "drawing process"])
def test_what_has_died_between_two_jobs_is_replaced(victim: str, drawer: Drawer, tmp_path: Path) -> None:
    assert write_images({tmp_path / "a.png": figure()}, drawer=drawer) is None
    process = drawing_process(os.getpid())
    killed = below(process.pid) if victim == "browser" else [process]
    for each in killed:
        each.kill()
    psutil.wait_procs(killed, timeout=10)
    assert write_images({tmp_path / "b.png": figure()}, drawer=drawer) is None
    assert (tmp_path / "b.png").stat().st_size


@pytest.mark.slow
@needs_chrome
def test_after_a_browser_that_hung_the_next_job_has_a_new_one(
    drawer: Drawer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = tmp_path / "chrome"
    sleeper.write_text("#!/bin/sh\nexec sleep 600\n")
    sleeper.chmod(sleeper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(images, "TIMEOUT_PER_FIGURE", 0.0)
    with monkeypatch.context() as hung:
        hung.setenv("BROWSER_PATH", str(sleeper))
        note = write_images({tmp_path / "a.png": figure()}, drawer=drawer, timeout=6)
        assert note is not None
        assert "did not answer within 6 s" in note
        assert whose_command_says("sleep", os.getpid()) == []
    assert write_images({tmp_path / "a.png": figure()}, drawer=drawer) is None


def test_a_drawer_that_was_never_asked_starts_nothing(temporary: Path) -> None:
    with Drawer():
        assert whose_command_says("_browser.py", os.getpid()) == []
    assert list(temporary.iterdir()) == []


def test_without_chrome_every_job_says_so(
    drawer: Drawer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no" / "chrome"))
    for _ in range(2):
        note = write_images({tmp_path / "a.png": figure()}, drawer=drawer)
        assert note is not None
        assert "no Chrome was found" in note


def _draw_and_wait(path: Path, temporary: Path, connection: Connection, browser: str | None = None) -> None:
    tempfile.tempdir = str(temporary)
    if browser is not None:
        os.environ["BROWSER_PATH"] = browser
    drawer = Drawer()
    connection.send(write_images({path: figure()}, drawer=drawer))
    time.sleep(600)


@pytest.mark.slow
@needs_chrome
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "stopped browser"])
def test_no_browser_outlives_its_worker(busy: bool, tmp_path: Path, temporary: Path) -> None:
    """The worker is killed outright; where its browser hangs as well, that is ended too."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    worker = multiprocessing.get_context("spawn").Process(
        target=_draw_and_wait, args=(tmp_path / "a.png", temporary, theirs)
    )
    worker.start()
    assert worker.pid is not None
    assert ours.poll(120)
    assert ours.recv() is None
    children = below(worker.pid)
    assert len(children) > 2
    if busy:
        for process in below(drawing_process(worker.pid).pid):
            process.suspend()
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(30)
    assert ended(children)
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_a_worker_that_is_killed_while_it_waits_for_a_figure_leaves_no_file(
    tmp_path: Path, temporary: Path
) -> None:
    """Drafts and the order for them too: a browser that never answers keeps the worker waiting."""
    sleeper = tmp_path / "chrome"
    sleeper.write_text("#!/bin/sh\nexec sleep 600\n")
    sleeper.chmod(sleeper.stat().st_mode | stat.S_IXUSR)
    context = multiprocessing.get_context("spawn")
    _ours, theirs = context.Pipe()
    worker = context.Process(
        target=_draw_and_wait, args=(tmp_path / "a.png", temporary, theirs, str(sleeper))
    )
    worker.start()
    assert worker.pid is not None
    until = time.monotonic() + 60
    while not list(temporary.rglob("job.json")) and time.monotonic() < until:
        time.sleep(0.05)
    assert list(temporary.rglob("job.json"))
    children = below(worker.pid)
    worker.kill()
    worker.join(30)
    assert ended(children)
    assert list(temporary.iterdir()) == []
