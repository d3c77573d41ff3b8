"""Figures to PNG and SVG files: in one browser start for as long as there is something to draw, and never at
the price of what asked for them.

Plotly draws images with a headless Chrome, through kaleido. That Chrome may be missing, fail or hang; none
of it is a reason to fail a run whose training took hours, so what goes wrong here comes back as one line of
text.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import psutil

from triggerctl import disk
from triggerctl.experiment.atomic import atomic_file, make_folder
from triggerctl.report._browser import DONE, FAILED, NO_BROWSER, PATIENCE

TIMEOUT = 60.0
"""Seconds a browser may take to start and draw; each figure adds `TIMEOUT_PER_FIGURE`."""
TIMEOUT_PER_FIGURE = 5.0
LONGEST_FOLDER = 24
SCALE = 2
"""Pixels of a PNG per pixel of the layout: 1,800 wide prints at 300 dpi over a text column."""
FAREWELL = PATIENCE + 3.0
"""Seconds the drawing process may take to end by itself."""
HUNG, GONE = -1, -2
HOW_TO = "The HTML ones hold the same; for images install Chrome (`kaleido_get_chrome`) or set BROWSER_PATH"


def write_images(
    figures: Mapping[Path, go.Figure], *, drawer: Drawer | None = None, timeout: float = TIMEOUT
) -> str | None:
    """Write each figure to its path; the suffix (.png, .svg) says the format, existing files are replaced.

    Returns None when all files are there, else one line that says why they are not and what to do: then none
    was written. `drawer`: of who draws many times, so that one browser serves them all. `timeout` in seconds,
    for the browser as a whole. Raises InputError or RunError where the folder they are to lie in can't be
    written.
    """
    if not figures:
        return None
    try:
        return _write_images(figures, drawer, timeout)
    except OSError as error:  # the folder for temporary files
        return f"{_missing(figures)}: {error.strerror or error} ({_temporary_folder()}). {HOW_TO}."


def _missing(figures: Mapping[Path, go.Figure]) -> str:
    kinds = " and ".join(sorted({path.suffix.removeprefix(".").upper() for path in figures}))
    return f"No {kinds} figures"


def _temporary_folder() -> str:
    """Where temporary files go, unless that is too long a path: Chrome makes a socket below it, for whose
    path a system has about a hundred bytes."""
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= LONGEST_FOLDER or not os.access("/tmp", os.W_OK | os.X_OK):
        return usual
    return "/tmp"


def _write_images(figures: Mapping[Path, go.Figure], drawer: Drawer | None, timeout: float) -> str | None:
    with contextlib.nullcontext(drawer) if drawer else Drawer() as pen:
        trouble = pen.draw(figures, timeout=timeout + TIMEOUT_PER_FIGURE * len(figures))
    return None if trouble is None else f"{_missing(figures)}: {trouble}. {HOW_TO}."


class Drawer:
    """The drawing process and its browser, started by `start` or at the first job and kept until `close`, or
    until the process that owns it is gone. One that has died or hung is replaced at the next job. `tabs`: how
    many figures are drawn side by side; more of them take longer to start."""

    def __init__(self, *, tabs: int = 1) -> None:
        self._tabs = tabs
        self._child: _Child | None = None

    def __enter__(self) -> Drawer:
        return self

    def __exit__(self, raised: object, *_: object) -> None:
        # After an error nobody waits for a browser, which may still be coming up.
        self.close(kindly=raised is None)

    def start(self) -> None:
        """Start the process and its browser, and don't wait for them: they come up beside other work."""
        with contextlib.suppress(OSError):  # the folder for temporary files: who draws will say so
            self._child = self._child or _Child(self._tabs)

    def close(self, *, kindly: bool = True) -> None:
        """End the process and its browser."""
        if self._child is not None:
            self._child.close(kindly=kindly)
            self._child = None

    def draw(self, figures: Mapping[Path, go.Figure], *, timeout: float) -> str | None:
        """Have each figure drawn and put in its place; None when all were, else why none was. `timeout` in
        seconds."""
        had_drawn = self._child is not None
        code, said = self._ask(figures, timeout)
        if had_drawn and code in (GONE, FAILED):
            code, said = self._ask(figures, timeout)  # with a new browser: the old one may have died idle
        if code == HUNG:
            return f"Chrome did not answer within {timeout:.0f} s"
        if code == NO_BROWSER:
            return "no Chrome was found"
        if code != DONE:
            return f"Chrome failed ({said[:200]})" if said else "Chrome failed"
        return None

    def _ask(self, figures: Mapping[Path, go.Figure], timeout: float) -> tuple[int, str]:
        """The process's answer; where it isn't DONE, there is no process afterwards."""
        self._child = self._child or _Child(self._tabs)
        code, said = self._child.draw(figures, timeout)
        if code != DONE:
            self.close(kindly=code != HUNG)
        return code, said


class _Child:
    """One drawing process. Its temporary files, its browser's and the drafts of figures lie in a folder that
    goes with it, so that nothing stays where the owner is killed in the midst of a job."""

    def __init__(self, tabs: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="triggerctl-drawing-", dir=_temporary_folder()))
        self._log = (self._folder / "log").open("w+", encoding="utf-8", errors="replace")
        script = Path(__file__).with_name("_browser.py")
        # -P: this folder must not go in front of the standard library (`statistics`).
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script), str(self._folder), str(tabs)],
            env={**os.environ, "TMPDIR": str(self._folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):  # closed meanwhile
            for line in self._process.stdout:
                self._answers.put(line)
        self._answers.put("")

    def draw(self, figures: Mapping[Path, go.Figure], timeout: float) -> tuple[int, str]:
        """Draw the figures and, if that went well, put each in its place. Returns the process's answer, GONE
        where it has died before it could give one, HUNG where none comes within `timeout` seconds; and what
        it said."""
        with tempfile.TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as name:
            drafts = {path: Path(name) / f"{i}{path.suffix}" for i, path in enumerate(figures)}
            job = [_order(figure, drafts[path]) for path, figure in figures.items()]
            job_file = Path(name) / "job.json"
            job_file.write_text(json.dumps(job, cls=_encoder()), encoding="utf-8")
            code, said = self._ask(job_file, timeout)
            if code != DONE:
                return code, said
            if not all(draft.is_file() and draft.stat().st_size for draft in drafts.values()):
                return FAILED, "it drew nothing"
            for path, draft in drafts.items():
                _move(draft, path)
        return DONE, ""

    def _ask(self, job_file: Path, timeout: float) -> tuple[int, str]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(str(job_file)) + "\n")
            self._process.stdin.flush()
            answer = self._answers.get(timeout=timeout)
        except queue.Empty:
            return HUNG, ""
        except OSError:
            answer = ""
        if not answer:
            return GONE, self._last_words()
        code, said = json.loads(answer)
        return int(code), " ".join(str(said).split())

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return lines[-1] if lines else ""

    def close(self, *, kindly: bool) -> None:
        """End the process and every browser process under it; `kindly`: giving it time to do so itself."""
        process = self._process
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(FAREWELL if kindly else 0)
        except subprocess.TimeoutExpired:
            self._kill()
        if process.stdout is not None:
            process.stdout.close()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _kill(self) -> None:
        try:
            below = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            below = []
        for process in (*below, self._process):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()


def _order(figure: go.Figure, draft: Path) -> dict[str, Any]:
    """What kaleido is to draw, and where to."""
    kind = draft.suffix.removeprefix(".")
    return {
        "fig": figure.to_plotly_json(),
        "path": str(draft),
        "opts": {
            "format": kind,
            "width": figure.layout.width,
            "height": figure.layout.height,
            "scale": SCALE if kind == "png" else 1,
        },
    }


def _encoder() -> type[json.JSONEncoder]:
    from plotly.utils import PlotlyJSONEncoder

    encoder: type[json.JSONEncoder] = PlotlyJSONEncoder
    return encoder


def _move(draft: Path, path: Path) -> None:
    """Put a finished file in its place in one step, also from another file system."""
    make_folder(path.parent)
    with atomic_file(path) as beside:
        disk.copy(draft, beside)
