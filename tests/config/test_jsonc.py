"""pytest tests/config/test_jsonc.py"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerctl.config import jsonc
from triggerctl.errors import InputError, Problem

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
Draw = Callable[[st.SearchStrategy[Any]], Any]
FILLERS = st.sampled_from(
    ["", " ", "\n", "\t", "\r\n", '// a, } comment "\n', "/* { , */", "/**/", "/* two\nlines */"]
)


def write_freely(value: object, draw: Draw) -> str:
    """JSON text for a value, with comments and blanks between its tokens, and trailing commas."""

    def fill() -> str:
        filler: str = draw(FILLERS)
        return filler

    if isinstance(value, dict):
        members = [f"{fill()}{json.dumps(k)}{fill()}:{write_freely(v, draw)}" for k, v in value.items()]
        return fill() + "{" + ",".join(members) + closing_comma(members, draw) + fill() + "}" + fill()
    if isinstance(value, list):
        items = [write_freely(v, draw) for v in value]
        return fill() + "[" + ",".join(items) + closing_comma(items, draw) + fill() + "]" + fill()
    return fill() + json.dumps(value, ensure_ascii=draw(st.booleans())) + fill()


def closing_comma(parts: list[str], draw: Draw) -> str:
    return "," if parts and draw(st.booleans()) else ""


@st.composite
def values_with_text(draw: st.DrawFn) -> tuple[object, str]:
    value = draw(JSON_VALUES)
    return value, write_freely(value, draw)


@given(values_with_text())
def test_any_value_survives_comments_and_trailing_commas(pair: tuple[object, str]) -> None:
    value, text = pair
    parsed = jsonc.parse(text, "x").value
    assert repr(parsed) == repr(value)  # repr: 1 and 1.0 and True are different values here


@given(JSON_VALUES.filter(lambda v: isinstance(v, dict | list)), st.data())
def test_a_document_cut_short_is_always_an_error(value: object, data: st.DataObject) -> None:
    text = json.dumps(value)
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(InputError):
        jsonc.parse(text[:cut], "x")


@given(st.text())
def test_any_text_is_a_document_or_an_error_with_a_place(text: str) -> None:
    try:
        jsonc.parse(text, "x")
    except InputError as error:
        place = problem(error).where
        assert place is not None
        line, column = place.removeprefix("x:").split(":")
        assert 1 <= int(line) <= text.count("\n") + 1
        assert int(column) >= 1


def problem(error: InputError) -> Problem:
    assert len(error.problems) == 1
    return error.problems[0]


def failure(text: str) -> Problem:
    with pytest.raises(InputError) as caught:
        jsonc.parse(text, "c.json")
    return problem(caught.value)


def test_every_key_and_item_knows_its_line() -> None:
    document = jsonc.parse('// first\n{\n  "a": 1, /* b\n is next */ "b": [\n 5,\n 6,],\n"c": {"d": 0}}', "x")
    assert document.value == {"a": 1, "b": [5, 6], "c": {"d": 0}}
    assert [document.line(key) for key in (("a",), ("b",), ("b", 0), ("b", 1), ("c", "d"))] == [3, 4, 5, 6, 7]


def test_a_key_that_is_not_there_is_placed_where_it_would_be() -> None:
    document = jsonc.parse('{\n\n"c": {"d": 0}}', "x")
    assert document.line(("c", "missing", 3)) == 3
    assert document.line(("missing",)) == 1


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("", "c.json:1:1", "nothing in it"),
        ("// only a comment", "c.json:1:18", "nothing in it"),
        ('{"a": 1,\n"b": {"c": [1, 2', "c.json:2:17", "in the middle of a list"),
        ('{"a": 1,\n', "c.json:2:1", "in the middle of an object"),
        ('{"a": "one, two', "c.json:1:7", "ends within a string"),
        ('{"a": "one\n}', "c.json:1:7", "not closed on its line"),
        ('{"a": "one\ttwo"}', "c.json:1:11", "control character"),
        (r'{"a": "c:\dir"}', "c.json:1:10", "backslash"),
        (r'{"a": "\ud800"}', "c.json:1:7", "surrogate"),
        ('{"a": 1\n "b": 2}', "c.json:2:2", "expected , or }"),
        ('{"a" 1}', "c.json:1:6", 'expected : after the key "a"'),
        ("{a: 1}", "c.json:1:2", "expected a key in double quotes"),
        ('{"a": True}', "c.json:1:7", "met True"),
        ('{"a": NaN}', "c.json:1:7", "met NaN"),
        ("{\"a\": 'x'}", "c.json:1:7", "met 'x'"),
        ('{"a": 01}', "c.json:1:7", "met 01"),
        ('{"a": 1e999}', "c.json:1:7", "too large"),
        ('{"a": ' + "9" * 5000 + "}", "c.json:1:7", "too long"),
        ('{"a": ,}', "c.json:1:7", "met ,"),
        ("[1,,2]", "c.json:1:4", "met ,"),
        ("[,]", "c.json:1:2", "met ,"),
        ("{} {}", "c.json:1:4", "more after the end"),
        ("[1] /* open", "c.json:1:5", "never closed"),
        ("[" * 5000, "c.json:1:102", "deep"),
        ("[\u00a0]", "c.json:1:2", "U+00A0"),
    ],
)
def test_what_is_not_json_is_named_with_its_place(text: str, place: str, says: str) -> None:
    found = failure(text)
    assert found.where == place
    assert says in found.what


def test_a_key_given_twice_names_both_lines() -> None:
    found = failure('{"a": 1,\n"b": 2,\n "a": 3}')
    assert found.what == 'the key "a" is given twice'
    assert found.where == "c.json:3:2"
    assert found.why is not None
    assert "line 1" in found.why


def test_the_same_key_in_two_objects_is_fine() -> None:
    assert jsonc.parse('{"a": {"x": 1}, "b": {"x": 2}}', "x").value == {"a": {"x": 1}, "b": {"x": 2}}


def test_python_literals_are_answered_with_those_of_json() -> None:
    assert failure('{"a": False}').mend == "write false"
    assert failure('{"a": None}').mend == "write null"


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert jsonc.read(path).value == {"a": 1}


def test_a_file_in_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes('{"a": 1,\n"b": "Größe"}'.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        jsonc.read(path)
    assert problem(caught.value).what == "the file is not UTF-8"
    assert problem(caught.value).where == f"{path}:2"


def test_a_file_that_is_not_there_and_a_folder_are_named(tmp_path: Path) -> None:
    for path, what in ((tmp_path / "none.json", "no such file"), (tmp_path, "a folder")):
        with pytest.raises(InputError) as caught:
            jsonc.read(path)
        assert what in problem(caught.value).what
        assert problem(caught.value).where == str(path)
