"""The process that draws images: started by `images.py` as a script, it reads one job file and starts one
Chrome.

A process of its own, so that a browser that hangs can be ended, and so that nothing of it (event loops,
signal handlers, threads, random numbers) reaches a training that is still in memory. It must import nothing
of triggerctl.

Its standard input is a pipe that nobody writes to and that closes when whoever started this process is gone,
even by a kill: then it ends its browser, removes the job's folder and ends itself.
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
import time
from pathlib import Path
from typing import Any

DONE, FAILED, NO_BROWSER = 0, 1, 3


def draw(job: Any) -> int:
    """Draw every figure of the job, kaleido's figure dictionaries; the exit code says how it went, standard
    error why it did not."""
    import kaleido
    from choreographer.errors import ChromeNotFoundError

    try:
        # Without `mathjax: False` the browser would ask a server for a script we have no use for.
        errors = asyncio.run(kaleido.write_fig_from_object(job, kopts={"mathjax": False, "timeout": None}))
    except ChromeNotFoundError:
        return NO_BROWSER
    for error in errors or ():
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    return FAILED if errors else DONE


def _end_with_the_starter(folder: Path, abandoned: threading.Event) -> None:
    import psutil

    while os.read(0, 1):
        pass
    abandoned.set()
    # More than once: the main thread may be about to start the browser.
    for _ in range(20):
        below = psutil.Process().children(recursive=True)
        for process in below:
            with contextlib.suppress(psutil.Error):
                process.kill()
                process.wait(5)
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)
        if not below and not folder.exists():
            break
    os._exit(FAILED)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    job_file, starter_is_gone = Path(sys.argv[1]), threading.Event()
    watch = threading.Thread(
        target=_end_with_the_starter, args=(job_file.parent, starter_is_gone), daemon=True
    )
    watch.start()
    try:
        code = draw(json.loads(job_file.read_text(encoding="utf-8")))
    finally:
        if starter_is_gone.is_set():
            watch.join()
    sys.exit(code)
