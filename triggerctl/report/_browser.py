"""The process that draws images: started by `images.py` as a script, it reads one job file and starts one
Chrome.

A process of its own, so that a browser that hangs can be ended, and so that nothing of it (event loops,
signal handlers, threads, random numbers) reaches a training that is still in memory. It must import nothing
of triggerctl.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
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


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    sys.exit(draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
