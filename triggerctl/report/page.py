"""The report as one page that opens from disk: no network, plotly.js once, nothing beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.utils import PlotlyJSONEncoder

from triggerctl import __version__
from triggerctl.report.drawing import DARK
from triggerctl.report.findings import Finding
from triggerctl.report.rows import Group, shown_sets
from triggerctl.report.samples import Sample
from triggerctl.report.summary import false_positive_cell, rate_cell, rate_legend, run_cell


def render_page(
    groups: Sequence[Group],
    *,
    title: str,
    headline: str,
    warnings: Sequence[Finding],
    figures: Mapping[str, go.Figure],
    samples: Sequence[Sample],
    environment: Sequence[tuple[str, str]],
) -> str:
    """The whole page as HTML. Everything that comes from data or configurations is escaped."""
    surroundings = jinja2.Environment(
        loader=jinja2.PackageLoader("triggerctl.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sets = shown_sets(groups)
    return surroundings.get_template("page.html.j2").render(
        title=title,
        headline=headline.splitlines(),
        warnings=warnings,
        sets=sets,
        rate_legend=rate_legend(groups),
        rates=[(group, [rate_cell(group, name) for name in sets]) for group in groups],
        runs=[
            (group, run, [run_cell(run, name) for name in sets], false_positive_cell(run))
            for group in groups
            for run in group.runs
        ],
        figures=[(name, _spoken(figure), figure.layout.height) for name, figure in figures.items()],
        samples=_by_set(samples),
        environment=environment,
        version=__version__,
        data=_script_json({name: figure.to_plotly_json() for name, figure in figures.items()}),
        dark=_script_json(dict(DARK)),
        plotly=get_plotlyjs(),
    )


def _spoken(figure: go.Figure) -> str:
    """What a screen reader says in place of a figure: its title, and where its numbers are."""
    title = str(figure.layout.title.text).partition("</b>")[0].removeprefix("<b>")
    return f"Figure: {title}. Its numbers are in the tables of this page."


def _by_set(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    result: dict[str, list[Sample]] = {}
    for sample in samples:
        result.setdefault(sample.set, []).append(sample)
    return result


def _script_json(value: object) -> str:
    """JSON that can stand inside a script element, whatever text it holds."""
    text = json.dumps(value, cls=PlotlyJSONEncoder, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
