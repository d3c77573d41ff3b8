"""The formats a report comes in. Apart from what writes them, so that a command line can be read without
loading a drawing library."""

from __future__ import annotations

FORMATS = ("html", "md", "csv", "json", "png", "svg")
DEFAULT_FORMATS = tuple(name for name in FORMATS if name != "svg")
