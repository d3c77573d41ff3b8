"""A short form of fuzz_readers.py: some hundred damaged files for each reader, the same every time.
Run: pytest tests/end_to_end/test_fuzz_readers.py"""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_readers import READERS, Reader, fuzz

FILES = 400


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: str(reader.name))
def test_damaged_files_are_read_or_refused_in_our_words(tmp_path: Path, reader: Reader) -> None:
    tally = fuzz(reader, tmp_path, seed=1, executions=FILES)
    assert not tally.caught, tally.examples
    assert min(tally.taken, tally.refused) > FILES / 20
