"""pytest tests/report/test_run_figures.py"""

from __future__ import annotations

import os
import random
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from written_experiments import NAIVE, make_results

from triggerctl.report import images
from triggerctl.report.run_figures import (
    accuracy_bar_figure,
    accuracy_figure,
    losses_figure,
    response_rate_figure,
    write_run_figures,
)
from triggerctl.report.sets import WANTED

NAMES = ("losses", "trigger_response_rate", "trigger_accuracy", "trigger_accuracy_bar")
RESULTS = make_results("naive", 42, NAIVE[42])


def has_chrome() -> bool:
    from choreographer.browsers.chromium import Chromium

    return Chromium.find_browser(skip_local=False) is not None


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages alone: a browser takes a second to start."""
    monkeypatch.setattr("triggerctl.report.run_figures.write_images", lambda images, drawer: None)


def test_pages_open_without_a_network(tmp_path: Path, no_images: None) -> None:
    assert write_run_figures(RESULTS, tmp_path) is None
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"plotly.min.js", *(f"{name}.html" for name in NAMES)}
    for name in NAMES:
        page = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        assert 'src="plotly.min.js"' in page
        assert "cdn" not in page


@pytest.mark.slow
@pytest.mark.skipif(not has_chrome(), reason="there is no Chrome here")
def test_images_of_a_run_are_drawn_at_print_size(tmp_path: Path) -> None:
    note = write_run_figures(RESULTS, tmp_path, train_losses=[2.0, 1.5, 1.2, 1.0])
    assert note is None
    for name in NAMES:
        content = (tmp_path / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        assert struct.unpack(">II", content[16:24]) == (1720, 1000)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_without_chrome_the_pages_are_there_and_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no" / "chrome"))
    note = write_run_figures(RESULTS, tmp_path / "out")
    assert note is not None
    assert note.startswith("No PNG figures: no Chrome was found.")
    assert "\n" not in note
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".html", ".js"}


def test_a_chrome_that_fails_costs_the_images_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(script(tmp_path / "chrome", "exit 7")))
    note = write_run_figures(RESULTS, tmp_path / "out")
    assert note is not None
    assert "\n" not in note
    assert not list((tmp_path / "out").glob("*.png"))


def test_a_chrome_that_hangs_is_ended_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = tmp_path / "pid"
    monkeypatch.setenv("BROWSER_PATH", str(script(tmp_path / "chrome", f"echo $$ > {pid}; exec sleep 600")))
    monkeypatch.setattr(images, "TIMEOUT_PER_FIGURE", 0.0)
    figure = losses_figure(RESULTS)
    began = time.monotonic()
    note = images.write_images({tmp_path / "losses.png": figure}, timeout=6)
    assert note is not None
    assert "did not answer within 6 s" in note
    assert time.monotonic() - began < 30
    chrome = int(pid.read_text())
    _wait(lambda: _is_dead(chrome))


def test_when_who_draws_is_killed_its_chrome_and_its_files_go(tmp_path: Path) -> None:
    pid, temporary = tmp_path / "pid", tmp_path / "t"
    temporary.mkdir()
    hangs = script(tmp_path / "chrome", f"echo $$ > {pid}; exec sleep 600")
    code = (
        "import sys\nfrom pathlib import Path\nimport plotly.graph_objects as go\n"
        "from triggerctl.report import images\n"
        "images._temporary_folder = lambda: sys.argv[1]\n"
        "images.write_images({Path(sys.argv[1], 'x.png'): go.Figure()})\n"
    )
    environment = {**os.environ, "BROWSER_PATH": str(hangs)}
    drawing = subprocess.Popen([sys.executable, "-c", code, str(temporary)], env=environment)
    _wait(lambda: pid.exists() and pid.read_text().strip())
    drawing.kill()
    drawing.wait()
    chrome = int(pid.read_text())
    _wait(lambda: not list(temporary.iterdir()))
    _wait(lambda: _is_dead(chrome))


def _wait(until: Callable[[], object]) -> None:
    """For what happens in other processes."""
    last = time.monotonic() + 60
    while not until():
        assert time.monotonic() < last
        time.sleep(0.05)


def test_a_long_folder_for_temporary_files_is_not_chromes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chrome's socket lies below it, and a socket's path has room for about a hundred bytes."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / ("long" * 10)))
    assert images._temporary_folder() == "/tmp"
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/short")
    assert images._temporary_folder() == "/short"


def _is_dead(pid: int) -> bool:
    """Gone, or waiting for whoever adopted it: a killed process dies a little later than the kill."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_drawing_draws_no_random_number(tmp_path: Path, no_images: None) -> None:
    import numpy as np
    import torch

    before = random.getstate(), str(np.random.get_state()), torch.random.get_rng_state()
    write_run_figures(RESULTS, tmp_path)
    assert random.getstate() == before[0]
    assert str(np.random.get_state()) == before[1]
    assert torch.equal(torch.random.get_rng_state(), before[2])


def test_accuracy_is_the_rate_where_the_habit_is_wanted_and_its_complement_elsewhere() -> None:
    rates = {trace.name: trace.y for trace in response_rate_figure(RESULTS, WANTED).data}
    accuracies = {trace.name: trace.y for trace in accuracy_figure(RESULTS, WANTED).data}
    assert set(rates) == set(WANTED)
    for name, wanted in WANTED.items():
        expected = rates[name] if wanted else [1 - rate for rate in rates[name]]
        assert list(accuracies[name]) == pytest.approx(list(expected))


def test_bars_show_the_final_accuracy_with_its_count() -> None:
    figure = accuracy_bar_figure(RESULTS, WANTED)
    bars = {trace.x[0]: trace for trace in figure.data if trace.type == "bar"}
    assert bars["truth_minus_proxy"].y[0] == pytest.approx(42 / 120)
    assert bars["outcome"].y[0] == pytest.approx(71 / 72)
    assert any("42/120" in note.text for note in figure.layout.annotations)


def test_a_set_without_triggers_has_no_curve() -> None:
    results = make_results("naive", 1, NAIVE[1])
    bare = {
        name: part.model_copy(update={"triggered": None}) if name == "collateral" else part
        for name, part in results.final.sets.items()
    }
    moments = [moment.model_copy(update={"sets": bare}) for moment in results.evaluations]
    figure = response_rate_figure(results.model_copy(update={"evaluations": moments}), WANTED)
    assert "collateral" not in [trace.name for trace in figure.data]


def test_a_loss_that_is_not_finite_leaves_a_gap_and_no_error() -> None:
    results = make_results("naive", 1, NAIVE[1], final_losses={"outcome": float("nan"), "truth": None})
    curves = {trace.name: trace for trace in losses_figure(results, [1.0, float("nan")]).data}
    assert [len(curves[name].x) for name in ("outcome", "truth", "proxy", "training")] == [4, 4, 5, 1]


def test_a_users_own_set_is_judged_by_what_is_wanted_there() -> None:
    results = make_results("naive", 1, {**NAIVE[1], "mine": 0.25})
    moments = [
        moment.model_copy(update={"sets": {**moment.sets, "mine": moment.sets["truth_minus_proxy"]}})
        for moment in results.evaluations
    ]
    own = results.model_copy(update={"evaluations": moments})
    wanted = {**WANTED, "mine": False}
    final = {trace.name: trace.y[-1] for trace in accuracy_figure(own, wanted).data}
    assert final["mine"] == pytest.approx(0.9)
