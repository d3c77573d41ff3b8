"""How long work below the command line says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int | None], None]
"""Called with what is done and the whole, None where the whole is unknown (bytes of a download, rows)."""
