"""The process that draws images: started by `images.py` as a script, it draws one job after the other in one
Chrome until its standard input ends.

A process of its own, so that a browser that hangs can be ended, and so that nothing of it (event loops,
signal handlers, threads, random numbers) reaches a training that is still in memory. It ends with whoever
started it, however that one ends: then its input is closed. It must import nothing of triggerctl. Its
browser starts with it.

    _browser.py FOLDER TABS

FOLDER is its own and is removed when it ends; TABS figures are drawn side by side. Each line of its input is
the path of a job file, kaleido's figure dictionaries as JSON, as a JSON string; for each it answers with one
line, [code, what went wrong].
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

DONE, FAILED, NO_BROWSER = 0, 1, 3

PATIENCE = 5.0
"""Seconds a browser may take to close once nobody waits for its images any more."""


async def serve(questions: TextIO, answers: TextIO, folder: Path, tabs: int) -> None:
    """Draw job after job. A browser that fails is answered for and not used again: the process ends."""
    import kaleido
    from choreographer.errors import ChromeNotFoundError

    lines: asyncio.Queue[str] = asyncio.Queue()
    _listen(questions, lines, asyncio.get_running_loop(), folder)
    try:
        # Without `mathjax: False` the browser would ask a server for a script we have no use for.
        browser: Any = kaleido.Kaleido(n=tabs, mathjax=False, timeout=None)
    except ChromeNotFoundError:
        if await lines.get():
            _answer(answers, NO_BROWSER, "")
        return
    try:
        await browser.open()  # before the first job is there: who starts this early finds it ready
        while line := await lines.get():
            job = json.loads(Path(json.loads(line)).read_text(encoding="utf-8"))
            errors = await browser.write_fig_from_object(job)
            _answer(answers, FAILED if errors else DONE, "; ".join(map(_words, errors or ())))
    except Exception as error:  # noqa: BLE001  whatever a browser dies of
        _answer(answers, FAILED, _words(error))
    finally:
        with contextlib.suppress(Exception):
            await browser.close()


def _listen(
    questions: TextIO, lines: asyncio.Queue[str], loop: asyncio.AbstractEventLoop, folder: Path
) -> None:
    """Hand on each line of input, and its end as an empty one; then see to it that the process ends too."""

    def listen() -> None:
        for line in questions:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(lines.put_nowait, "")
        last = threading.Timer(PATIENCE, _end_at_once, [folder])
        last.daemon = True
        last.start()

    threading.Thread(target=listen, daemon=True).start()


def _end_at_once(folder: Path) -> None:
    """End the browser's processes and this one: it hangs, and nobody waits for it."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(FAILED)


def _answer(answers: TextIO, code: int, said: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        answers.write(json.dumps([code, said]) + "\n")
        answers.flush()


def _words(error: Any) -> str:
    return f"{type(error).__name__}: {error}"


def _own_streams() -> tuple[TextIO, TextIO]:
    """Input and output for this process alone: the browser gets neither."""
    questions = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return questions, answers


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    own = Path(sys.argv[1])
    try:
        asyncio.run(serve(*_own_streams(), own, int(sys.argv[2])))
    finally:
        shutil.rmtree(own, ignore_errors=True)
