"""A process that keeps its pages gets no new ones for tensors like those it freed.
Run: pytest tests/test_pages.py"""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FREED_AND_WANTED_AGAIN = """
import resource, sys
import triggerctl, torch
from triggerctl.pages import keep_pages
if sys.argv[1] == "kept":
    assert keep_pages()
def use():
    held = [torch.ones(2**20) for _ in range(40)]  # 4 MiB each, together more than what is kept by itself
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs GNU's C library")
def test_freed_pages_are_used_again() -> None:
    new = {
        how: int(subprocess.check_output([sys.executable, "-c", FREED_AND_WANTED_AGAIN, how], text=True))
        for how in ("kept", "given back")
    }
    assert new["kept"] < 0.2 * new["given back"], new
