"""The report as one page that opens from disk: no network, plotly.js once, nothing beside it.

What the page is made of: page.html.j2 (its order and its words), page.css, page.js (theme, figures, sorting,
search) and flips.js (two strategies side by side).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs
from plotly.utils import PlotlyJSONEncoder

from triggerctl import __version__
from triggerctl.report.comparisons import Comparison
from triggerctl.report.drawing import DARK
from triggerctl.report.findings import Finding
from triggerctl.report.flips import Flips, Pair
from triggerctl.report.rows import LEARNT, Group
from triggerctl.report.samples import Sample, left_out
from triggerctl.report.spoken import Panel, figure_numbers, figure_title
from triggerctl.report.summary import rate_legend
from triggerctl.report.tables import comparison_table, early_table, rate_table, run_table, settings_table

MOST_WARNINGS = 12
"""Shown at once; those after them, less grave, open on demand."""
PANEL_TITLE = 46
"""Pixels from a panel's title down to the panel."""
LONG = 600
"""Characters of a long text that stand open; the rest, where it is half as much or more, is there to be
opened."""

_TURNS_TEXT = re.compile("[\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class _Figure:
    """A figure's frame in the page; `width` and `height` in pixels, `cuts` from its top, where paper may cut
    it."""

    name: str
    title: str
    width: int
    height: int
    cuts: tuple[int, ...]
    panels: tuple[Panel, ...]


def render_page(
    groups: Sequence[Group],
    *,
    title: str,
    headline: str,
    warnings: Sequence[Finding],
    figures: Mapping[str, go.Figure],
    samples: Sequence[Sample],
    environment: Sequence[tuple[str, str]],
    comparisons: Sequence[Comparison] = (),
    few_seeds: Sequence[str] = (),
    flips: Flips | None = None,
    compared: Pair | None = None,
) -> str:
    """The whole page as HTML. Everything that comes from data or configurations is escaped.

    `few_seeds`: sentences on what so few seeds can show;
    `compared`: the labels of the two groups whose flips are shown first; None: the first group, which is the
    baseline, and the best of the others.
    """
    surroundings = jinja2.Environment(
        loader=jinja2.PackageLoader("triggerctl.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    surroundings.filters |= {"tame": tame, "clipped": clipped, "unbroken": unbroken}
    rates = rate_table(groups)
    page = surroundings.get_template("page.html.j2").render(
        title=title,
        headline=headline.splitlines(),
        warnings=warnings,
        most_warnings=MOST_WARNINGS,
        rate_legend=rate_legend(groups),
        rates=rates,
        rates_over_words=any("words" in cell.below for row in rates.rows for cell in row[1:]),
        figures=[_framed(name, figure) for name, figure in figures.items()],
        comparisons=comparison_table(comparisons),
        few_seeds=few_seeds,
        early=early_table(groups),
        settings=settings_table(groups),
        samples=_by_set(samples),
        answers_left_out=left_out(groups),
        flips=_flips_data(flips, groups, compared) if flips is not None else None,
        flips_scope=flips.scope if flips is not None else "",
        flips_left_out=flips.left_out if flips is not None else 0,
        runs=run_table(groups),
        environment=environment,
        version=__version__,
        data=_script_json({name: _short_numbers(figure) for name, figure in figures.items()}),
        dark=_script_json(dict(DARK)),
        plotly=get_plotlyjs(),
        style=_part("page.css"),
        scripts=[_part("page.js"), _part("flips.js")],
    )
    # Half a surrogate pair, which JSON may hold, is no text: it can't be written as UTF-8.
    return page.encode("utf-8", "replace").decode("utf-8")


def tame(text: str) -> str:
    """Text that stands amid ours, with the characters that turn the direction of what follows made
    visible."""
    return _TURNS_TEXT.sub(lambda found: f"[U+{ord(found[0]):04X}]", text)


def unbroken(text: str) -> Markup:
    """A number whose interval must not be broken over lines."""
    value, space, interval = text.partition(" [")
    if not space:
        return escape(text)
    return Markup('{} <span class="unbroken">[{}</span>').format(value, interval)


def clipped(text: str) -> tuple[str, str]:
    """What of a text stands open, and the rest; cut between words where there are any."""
    if len(text) < LONG * 3 // 2:
        return text, ""
    cut = text.rfind(" ", LONG // 2, LONG) + 1 or LONG
    return text[:cut], text[cut:]


def _framed(name: str, figure: go.Figure) -> _Figure:
    layout = figure.layout
    return _Figure(
        name, figure_title(figure), layout.width, layout.height, _cuts(figure), figure_numbers(figure)
    )


def _cuts(figure: go.Figure) -> tuple[int, ...]:
    """Above the title of each panel but the first, where panels stand in one column."""
    if len({axis.domain for axis in figure.select_xaxes()}) != 1:
        return ()
    layout = figure.layout
    plot = layout.height - layout.margin.t - layout.margin.b
    tops = sorted(
        layout.margin.t + (1 - axis.domain[1]) * plot for axis in figure.select_yaxes() if axis.domain
    )
    return tuple(round(top - PANEL_TITLE) for top in tops[1:])


def _by_set(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    result: dict[str, list[Sample]] = {}
    for sample in samples:
        result.setdefault(sample.set, []).append(sample)
    return result


def _flips_data(flips: Flips, groups: Sequence[Group], compared: Pair | None) -> str:
    """What flips.js reads: groups by their number."""
    places = {label: place for place, label in enumerate(flips.groups)}
    first, second = _first_shown(flips, groups, compared)
    document = {
        "groups": [tame(label) for label in flips.groups],
        "first": places[first],
        "second": places[second],
        "asked": [asdict(asked) for asked in flips.asked],
        "said": [{**asdict(said), "group": places[said.group]} for said in flips.said],
    }
    return _script_json(document)


def _first_shown(flips: Flips, groups: Sequence[Group], compared: Pair | None) -> Pair:
    """Two groups that were asked the same; `compared` where they can be."""
    if compared is not None and set(compared) <= set(flips.groups):
        return compared
    first = flips.groups[0]
    own_leak = next(group.leak_set for group in groups if group.label == first)
    ranks = {group.label: _rank(group, own_leak) for group in groups}
    own = {i for said in flips.said if said.group == first for i in said.verdicts}
    others = {said.group: None for said in flips.said if said.group != first and own & set(said.verdicts)}
    return first, max(others or flips.groups[1:], key=lambda label: ranks[label])


def _rank(group: Group, leak_set: str | None) -> tuple[bool, bool, float]:
    """A group that never learnt the habit comes after all that did, and one whose separation is of another
    leak set after those whose separations compare."""
    learnt = (group.mean("outcome") or 0.0) >= LEARNT
    return learnt, group.leak_set == leak_set, -1.0 if group.separation is None else group.separation


def _part(name: str) -> str:
    return files("triggerctl.report").joinpath(name).read_text(encoding="utf-8")


def _short_numbers(figure: go.Figure) -> Any:
    """A figure's JSON with numbers to six digits, which no screen shows the rest of."""
    text = json.dumps(figure.to_plotly_json(), cls=PlotlyJSONEncoder)
    return json.loads(text, parse_float=lambda number: float(f"{float(number):.6g}"))


def _script_json(value: object) -> str:
    """JSON that can stand inside a script element, whatever text it holds."""
    text = json.dumps(value, cls=PlotlyJSONEncoder, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
