"""Pages of memory, of which a run's updates want the same number again and again: the kernel fills each new
one with zeros and enters it in its tables, which on a CPU takes a twentieth of a run's time."""

from __future__ import annotations

import sys

LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""PyTorch's switch, an environment variable: large tensors lie on pages of 2 MiB, where the kernel gives such
to who asks."""

PROGRAMS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
"""How many programs for products oneDNN keeps, half a MiB each."""

MEMORY = {LARGE_PAGES: "1", PROGRAMS: "256"}
"""What to add to the environment before PyTorch is loaded, where it isn't there."""

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""By which numbers GNU's C library knows its options, malloc.h says."""

NEVER = 2**31 - 1
LARGEST = 2**25
"""Bytes: more than this the library asks of the kernel each time, and lets it choose no higher."""


def keep_pages() -> bool:
    """Have this process keep the pages that it has freed, for its next tensors. Whether it does: other C
    libraries than GNU's are left to themselves."""
    if sys.platform != "linux":
        return False
    import ctypes  # takes milliseconds, which commands that only list have no use for

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(*option) == 1 for option in ((TRIM_THRESHOLD, NEVER), (MMAP_THRESHOLD, LARGEST)))
