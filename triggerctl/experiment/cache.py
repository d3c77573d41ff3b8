"""Where downloads and reusable computations live: one folder, named by content, safe to delete at any
time."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """The cache folder: `TRIGGERCTL_CACHE`, else the user's own cache folder. It may not exist yet."""
    chosen = os.environ.get("TRIGGERCTL_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("triggerctl", appauthor=False))
