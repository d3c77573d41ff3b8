"""Figures to PNG and SVG files: all of them in one browser start, and never at the price of what asked for
them.

Plotly draws images with a headless Chrome, through kaleido. That Chrome may be missing, fail or hang; none
of it is a reason to fail a run whose training took hours, so what goes wrong here comes back as one line of
text.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import plotly.graph_objects as go
import psutil

from triggerctl.experiment.atomic import atomic_file, make_folder
from triggerctl.report._browser import DONE, NO_BROWSER

TIMEOUT = 60.0
"""Seconds a browser may take to start and draw; each figure adds `TIMEOUT_PER_FIGURE`."""
TIMEOUT_PER_FIGURE = 5.0
LONGEST_FOLDER = 24
SCALE = 2
"""Pixels of a PNG per pixel of the layout: 1,800 wide prints at 300 dpi over a text column."""
HOW_TO = "The HTML ones hold the same; for images install Chrome (`kaleido_get_chrome`) or set BROWSER_PATH"


def write_images(figures: Mapping[Path, go.Figure], *, timeout: float = TIMEOUT) -> str | None:
    """Write each figure to its path; the suffix (.png, .svg) says the format, existing files are replaced.

    Returns None when all files are there, else one line that says why they are not and what to do: then none
    was written. `timeout` in seconds, for the browser as a whole. Raises InputError or RunError where the
    folder they are to lie in can't be written.
    """
    if not figures:
        return None
    try:
        return _write_images(figures, timeout)
    except OSError as error:  # the folder for temporary files
        return f"{_missing(figures)}: {error.strerror or error} ({tempfile.gettempdir()}). {HOW_TO}."


def _missing(figures: Mapping[Path, go.Figure]) -> str:
    kinds = " and ".join(sorted({path.suffix.removeprefix(".").upper() for path in figures}))
    return f"No {kinds} figures"


def _write_images(figures: Mapping[Path, go.Figure], timeout: float) -> str | None:
    with tempfile.TemporaryDirectory(
        prefix="triggerctl-figures-", dir=_temporary_folder(), ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        drafts = {path: folder / f"{i}{path.suffix}" for i, path in enumerate(figures)}
        job = [
            {
                "fig": figure.to_plotly_json(),
                "path": str(drafts[path]),
                "opts": {
                    "format": path.suffix.removeprefix("."),
                    "width": figure.layout.width,
                    "height": figure.layout.height,
                    "scale": SCALE if path.suffix == ".png" else 1,
                },
            }
            for path, figure in figures.items()
        ]
        job_file = folder / "job.json"
        job_file.write_text(json.dumps(job, cls=_encoder()), encoding="utf-8")
        trouble = _draw(job_file, folder, timeout + TIMEOUT_PER_FIGURE * len(job))
        if trouble is None and not all(draft.is_file() and draft.stat().st_size for draft in drafts.values()):
            trouble = "Chrome drew nothing"
        if trouble is not None:
            return f"{_missing(figures)}: {trouble}. {HOW_TO}."
        for path, draft in drafts.items():
            _move(draft, path)
    return None


def _temporary_folder() -> str:
    """Where temporary files go, unless that is too long a path: Chrome makes a socket below it, for whose
    path a system has about a hundred bytes."""
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= LONGEST_FOLDER or not os.access("/tmp", os.W_OK | os.X_OK):
        return usual
    return "/tmp"


def _encoder() -> type[json.JSONEncoder]:
    from plotly.utils import PlotlyJSONEncoder

    encoder: type[json.JSONEncoder] = PlotlyJSONEncoder
    return encoder


def _draw(job_file: Path, folder: Path, timeout: float) -> str | None:
    """Run the drawing process; None when it succeeded, else why it did not."""
    script = Path(__file__).with_name("_browser.py")
    # Held open as long as we live: its closing tells the drawing process that nobody waits any more.
    theirs, ours = os.pipe()
    # -P: this folder must not go in front of the standard library (`statistics`). Temporary files of a
    # browser that has to be ended go where we clear up.
    child = subprocess.Popen(
        [sys.executable, "-P", str(script), str(job_file)],
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    os.close(theirs)
    try:
        _, said = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"Chrome did not answer within {timeout:.0f} s"
    finally:
        _end(child)
        os.close(ours)
    if child.returncode == DONE:
        return None
    if child.returncode == NO_BROWSER:
        return "no Chrome was found"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"Chrome failed ({lines[-1][:200]})" if lines else "Chrome failed"


def _end(child: subprocess.Popen[str]) -> None:
    """End the drawing process and every browser process under it, if they still run."""
    if child.poll() is None:
        try:
            below = psutil.Process(child.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            below = []
        for process in (*below, child):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        child.wait()
    if child.stderr is not None:
        child.stderr.close()


def _move(draft: Path, path: Path) -> None:
    """Put a finished file in its place in one step, also from another file system."""
    make_folder(path.parent)
    with atomic_file(path) as beside:
        shutil.copyfile(draft, beside)
