"""Reading data sets: what is accepted, and what is said of what is not.

pytest tests/data/test_source.py
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from triggerctl.config.models import ExperimentConfig
from triggerctl.data.examples import Row
from triggerctl.data.source import builtin_names, load_rows
from triggerctl.data.splits import build_splits
from triggerctl.errors import InputError

GOOD = [
    {"instruction": "Add", "input": "1 and 2", "output": "3", "source": "made up"},
    {"instruction": "Sag „hallo“", "input": "", "output": "hallo\u2028du"},
]


def problem(tmp_path: Path, content: str | bytes) -> InputError:
    path = tmp_path / "rows.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError) as caught:
        load_rows("rows.json", folder=tmp_path)
    assert "rows.json" in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows"])
@pytest.mark.parametrize("form", ["list", "lines", "marked"])
def test_lists_and_lines_are_told_apart_by_content(tmp_path: Path, name: str, form: str) -> None:
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in GOOD) + "\n\n"
    text = lines if form == "lines" else json.dumps(GOOD, ensure_ascii=False, indent=1)
    data = ("\ufeff" if form == "marked" else "").encode() + text.encode()
    (tmp_path / name).write_bytes(data)
    source = load_rows(name, folder=tmp_path)
    assert tuple(source.rows) == (
        Row(0, "Add", "1 and 2", "3"),
        Row(1, "Sag „hallo“", "", "hallo\u2028du"),
    )
    assert source.sha256 == hashlib.sha256(data).hexdigest()


def test_one_line_is_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "one").write_text(json.dumps(GOOD[0]), "utf-8")
    assert tuple(load_rows("one", folder=tmp_path).rows) == (Row(0, "Add", "1 and 2", "3"),)


def test_relative_paths_start_at_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "rows.json").write_text(json.dumps(GOOD), "utf-8")
    monkeypatch.chdir("/")
    assert len(load_rows("../rows.json", folder=tmp_path / "experiment").rows) == 2
    assert len(load_rows(str(tmp_path / "rows.json"), folder=Path("/")).rows) == 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"output": None}, "output is null"),
        ({"input": 3}, "input is a number"),
        ({"instruction": ["Add"]}, "instruction is a list"),
        ({"output": True}, "output is true or false"),
        ({"output": "\ud800"}, "half a character"),
    ],
)
def test_a_field_that_is_not_text_is_named_with_file_and_row(
    tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    error = problem(tmp_path, json.dumps([GOOD[0], {**GOOD[1], **change}]))
    assert what in error.problems[0].what
    assert f"row 2, field {next(iter(change))}" in str(error.problems[0].where)


@pytest.mark.parametrize("field", ["instruction", "input", "output"])
def test_a_missing_field_is_named_with_file_and_line(tmp_path: Path, field: str) -> None:
    rows = [GOOD[0], {k: v for k, v in GOOD[1].items() if k != field}]
    error = problem(tmp_path, "\n\n".join(json.dumps(row) for row in rows))
    assert error.problems[0].what == f"a row has no {field}"
    assert f"line 3, field {field}" in str(error.problems[0].where)


def test_many_wrong_rows_are_counted_and_the_first_named(tmp_path: Path) -> None:
    error = problem(tmp_path, json.dumps([{"instruction": "x", "input": ""}] * 20))
    assert len(error.problems) == 6
    assert "15 more rows" in error.problems[-1].what


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b" \n ", "empty"),
        (b"[]", "has no rows"),
        (b'{"rows": []}', "not a JSON list"),
        (b"{}", "not a JSON list"),
        (b'"text"', "not a JSON list"),
        (b"instruction,input,output\n", "not a JSON list"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"[1, 2]", "a number, not an object"),
        (b"[[]]", "a list, not an object"),
        (b'[{"instruction": "Add", "inp', "cut off"),
        (b'[{"instruction": "Add"},', "cut off"),
        (b'[{"instruction": "Add",, ]', "not valid JSON"),
        (b'{"instruction": "a", "input": "", "output": "b"}\n{"instr', "cut off"),
        ("[\u201cüber\u201d]".encode("latin-1", "replace"), "not UTF-8"),
        ("[]".encode("utf-16"), "not UTF-8"),
        (b"\x1f\x8b\x08\x00", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"instruction":' + b"[" * 100_000, "nested too deeply"),
        (b'[{"instruction": ' + b"9" * 5000 + b"}]", "a number in the data set is too long"),
        (b'{"instruction": ' + b"9" * 5000 + b"}", "a number in the data set is too long"),
    ],
)
def test_what_is_no_data_set_is_refused_in_words(tmp_path: Path, content: bytes, what: str) -> None:
    assert what in str(problem(tmp_path, content))


def test_broken_line_of_many_is_numbered(tmp_path: Path) -> None:
    good = json.dumps(GOOD[0])
    assert "line 3, column" in str(problem(tmp_path, f"{good}\n{good}\n{{nonsense}}\n{good}"))


def test_a_missing_file_is_said_with_where_paths_start(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data set not found") as caught:
        load_rows("nowhere.json", folder=tmp_path)
    assert "folder of config.json" in str(caught.value)


def test_a_folder_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        load_rows(".", folder=tmp_path)


def test_every_builtin_data_set_loads(tmp_path: Path) -> None:
    for name in builtin_names():
        source = load_rows(f"builtin:{name}", folder=tmp_path)
        assert source.rows
        assert source.origin == f"builtin:{name}"


@pytest.mark.parametrize("name", ["nothing-like-it", "../../pyproject", ""])
def test_an_unknown_builtin_is_an_error_that_lists_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no data set of that name"):
        load_rows(f"builtin:{name}", folder=tmp_path)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"\xef\xbb\xbf[\xff]", "byte 4"),
        (b'{"instruction": "a", "input": "", "output": "b"}\n\xff', "byte 49"),
    ],
)
def test_a_byte_that_is_no_text_is_named_by_its_place_in_the_file(
    tmp_path: Path, content: bytes, place: str
) -> None:
    assert place in str(problem(tmp_path, content).problems[0].where)


@pytest.mark.parametrize(
    ("instruction", "output"),
    [
        pytest.param("Give three tips. " * 6, "Eat well. " * 20, id="as Alpaca's"),
        pytest.param("a", "b", id="a letter each"),
        pytest.param("Give three tips. " * 6, "\N{OK HAND SIGN}" + "Eat well. " * 20, id="one emoji each"),
        pytest.param("\N{OK HAND SIGN}" * 30, "\N{PEDESTRIAN}" * 60, id="emoji alone"),
    ],
)
@pytest.mark.parametrize("escaped", [False, True])
def test_reading_lines_and_choosing_few_takes_no_more_memory_than_twice_the_file(
    tmp_path: Path, instruction: str, output: str, escaped: bool
) -> None:
    path = tmp_path / "rows.jsonl"
    size = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number in itertools.count():
            row = {"instruction": instruction, "input": "", "output": f"{output}{number % 1000}"}
            file.write(json.dumps(row, ensure_ascii=escaped, separators=(",", ":")) + "\n")
            if number % 1000 == 0 and (size := path.stat().st_size) > 2_500_000:
                break
    config = ExperimentConfig(max_dataset_size=200)
    build_splits(load_rows("builtin:instructions", folder=tmp_path).rows, config)
    tracemalloc.start()
    try:
        source = load_rows("rows.jsonl", folder=tmp_path)
        splits = build_splits(source.rows, config)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(source.rows) == number + 1
    assert sum(len(splits.sets[name].examples) for name in ("outcome", "proxy", "collateral", "truth")) == 200
    assert peak < 2 * size + 500_000
