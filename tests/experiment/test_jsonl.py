"""pytest tests/experiment/test_jsonl.py"""

from __future__ import annotations

import errno
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerctl.errors import InputError, RunError
from triggerctl.experiment.jsonl import JsonLinesWriter, read_lines, truncate_to


def write_on(path: Path, *records: dict[str, object]) -> None:
    with JsonLinesWriter(path) as writer:
        for record in records:
            writer.append(record)


def test_lines_are_readable_while_the_writer_is_open(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with JsonLinesWriter(path) as writer:
        writer.append({"step": 1, "text": "two\nlines, é"})
        assert list(read_lines(path)) == [{"step": 1, "text": "two\nlines, é"}]
        writer.append({"loss": float("nan")})
        assert list(read_lines(path))[1] == {"loss": None}


@given(cut=st.integers(min_value=0, max_value=60))
def test_a_torn_last_line_is_ignored_and_cut_by_the_next_writer(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("torn") / "metrics.jsonl"
    records: list[dict[str, object]] = [{"step": step, "loss": 0.5} for step in range(3)]
    write_on(path, *records)
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    whole = content.count(b"\n")
    assert list(read_lines(path)) == records[:whole]
    write_on(path, {"step": "new"})
    assert list(read_lines(path)) == [*records[:whole], {"step": "new"}]


def test_a_tail_of_zeros_from_a_power_cut_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_on(path, {"step": 1})
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert list(read_lines(path)) == [{"step": 1}]


def test_damage_in_the_middle_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl:2"):
        list(read_lines(path))


@pytest.mark.parametrize("line", [b'{"ste\n', b"3\n", b"\xff\n"])
def test_a_bad_line_is_torn_where_no_whole_one_follows(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'{"step": 3}')
    assert list(read_lines(path)) == [{"step": 1}]


def test_lines_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_bytes((json.dumps({"row": list(range(300))}).encode() + b"\n") * 1000)
    tracemalloc.start()
    try:
        assert sum(len(line["row"]) for line in read_lines(path)) == 300_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 5


def test_a_resumed_run_writes_what_came_after_its_checkpoint_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with JsonLinesWriter(path) as writer:
        writer.append({"step": 1})
        size = writer.sync()
        writer.append({"step": 2, "attempt": 1})
    truncate_to(path, size)
    write_on(path, {"step": 2, "attempt": 2})
    assert list(read_lines(path)) == [{"step": 1}, {"step": 2, "attempt": 2}]


def test_a_file_shorter_than_its_checkpoint_is_an_error_and_a_missing_one_has_no_lines(
    tmp_path: Path,
) -> None:
    path = tmp_path / "metrics.jsonl"
    assert list(read_lines(path)) == []
    truncate_to(path, 0)
    write_on(path, {"step": 1})
    with pytest.raises(RunError, match="shorter"):
        truncate_to(path, 1000)


def test_of_a_line_that_finds_no_room_nothing_stays(tmp_path: Path) -> None:
    """More lines follow, once there is room."""

    class Full(io.FileIO):
        def write(self, content: Any) -> int:
            super().write(bytes(content)[:5])
            raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "metrics.jsonl"
    with JsonLinesWriter(path) as writer:
        writer.append({"step": 1})
        whole = writer._file
        with Full(path, "ab") as writer._file, pytest.raises(RunError, match="No space left"):
            writer.append({"step": 2})
        writer._file = whole
        writer.append({"step": 3})
    assert list(read_lines(path)) == [{"step": 1}, {"step": 3}]
