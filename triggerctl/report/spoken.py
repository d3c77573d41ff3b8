"""A figure's numbers in words, for readers who can't see it: what its marks say when the pointer rests on
them, panel by panel."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

MOST_LINES = 200
"""Of one figure; what goes beyond is in the tables."""

_FIELD = re.compile(r"%\{(\w+)(?:\[(\d+)\])?(?::([^}]*))?\}")
_TAG = re.compile(r"<extra>.*?</extra>|<[^>]*>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Panel:
    """`title`: empty where a figure has one panel."""

    title: str
    lines: tuple[str, ...]


def figure_title(figure: go.Figure) -> str:
    """The sentence above the figure, without what stands below it."""
    return bare(str(figure.layout.title.text or "").partition("<br>")[0])


def figure_numbers(figure: go.Figure) -> tuple[Panel, ...]:
    """Every mark's hover text, `MOST_LINES` in all; panels in the order of their first mark."""
    document: dict[str, Any] = figure.to_plotly_json()
    layout = document["layout"]
    panels: dict[str, list[str]] = {}
    count = 0
    for trace in document["data"]:
        for line in _lines(trace):
            count += 1
            if count <= MOST_LINES:
                panels.setdefault(_panel_title(layout, trace), []).append(line)
    if count > MOST_LINES:
        panels.setdefault("", []).append(f"and {count - MOST_LINES} more")
    return tuple(Panel(title, tuple(lines)) for title, lines in panels.items())


def bare(text: str) -> str:
    """Plotly's text without its mark-up."""
    spaced = re.sub(r"<br\s*/?>", " · ", re.sub(r"<extra>.*?</extra>", "", text))
    return " ".join(html.unescape(_TAG.sub("", spaced)).split())


def _lines(trace: Mapping[str, Any]) -> Iterator[str]:
    template = trace.get("hovertemplate")
    if template is None or trace.get("hoverinfo") == "skip":
        return
    for index, point in enumerate(_points(trace)):
        one = template if isinstance(template, str) else template[index]
        said = bare(_FIELD.sub(lambda found, at=point: _value(found, at), one))
        if said:
            yield said


def _points(trace: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each mark's own values: x, y, and those that a template may name besides."""
    xs, ys, zs = (_listed(trace.get(axis)) for axis in "xyz")
    if zs:
        for row, values in enumerate(zs):
            for column, z in enumerate(_listed(values)):
                if z is None or z != z:
                    continue
                others = {key: _at(_at(trace.get(key), row), column) for key in ("customdata", "text")}
                yield {"x": _at(xs, column), "y": _at(ys, row), "z": z, **others}
        return
    for index in range(max(len(xs), len(ys))):
        others = {key: _at(trace.get(key), index) for key in ("customdata", "text")}
        yield {"x": _at(xs, index), "y": _at(ys, index), **others}


def _listed(values: Any) -> list[Any]:
    return [] if values is None else list(values)


def _at(values: Any, index: int) -> Any:
    """One value of a column; a value that stands for the whole column is itself."""
    if values is None or isinstance(values, str | int | float):
        return values
    found = list(values)
    return found[index] if index < len(found) else None


def _value(found: re.Match[str], point: Mapping[str, Any]) -> str:
    name, place, form = found.groups()
    value = point.get(name)
    if place is not None:
        value = _at(value, int(place))
    if value is None:
        return "none"
    try:
        return html.escape(format(value, form or ""), quote=False)
    except (ValueError, TypeError):
        return html.escape(str(value), quote=False)


def _panel_title(layout: Mapping[str, Any], trace: Mapping[str, Any]) -> str:
    """What stands at the upper left of the trace's panel; a heatmap goes by its own name."""
    across, up = (f"{trace.get(f'{axis}axis') or axis} domain" for axis in "xy")
    for note in layout.get("annotations") or ():
        if [note.get(key) for key in ("xref", "yref", "x", "y")] == [across, up, 0, 1]:
            return bare(str(note.get("text") or ""))
    return bare(str(trace.get("name") or "")) if trace.get("type") == "heatmap" else ""
