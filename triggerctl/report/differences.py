"""The forest of paired differences: each group less the baseline, seed by seed, set by set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from triggerctl.report.comparisons import SEPARATION, Comparison
from triggerctl.report.drawing import INK, MUTED, PAPER, TEXT_WIDTH, add_notes, lay_out, plain
from triggerctl.report.panels import add_title, name_margin, name_rows, panel_title
from triggerctl.report.rows import HABIT_SETS, Group
from triggerctl.report.scene import Scene
from triggerctl.report.styles import Style, short_tag, where

MOST_ROWS = 30
MOST_ROWS_OF_ALL_SETS = 12
"""With more groups, separation and leak alone are drawn."""
GAP, TOP, BOTTOM = 104, 124, 60
"""Pixels between two panels, above the first, below the last."""
COLUMNS = ((14, "p (Holm)"), (88, "seeds"))
"""Columns right of the panels: pixels from their edge, heading."""


def differences_figure(scene: Scene) -> go.Figure | None:
    """A panel a set, a row a group: every seed's difference to the baseline as a dot, their mean as a
    diamond, a thick bar for new seeds with these trigger words, a thin one for new words too; p after Holm
    and the number of seeds on the right. None where nothing was compared."""
    compared = {comparison.group for comparison in scene.comparisons}
    chosen = scene.foremost(MOST_ROWS)
    drawn = [group for group in chosen if group.label in compared]
    by_set = _by_set(scene, drawn)
    if not by_set or scene.baseline is None:
        return None
    row_height = 32 if len(drawn) <= 8 else 26
    panel = row_height * len(drawn) + 8
    plot = panel * len(by_set) + GAP * (len(by_set) - 1)
    figure = make_subplots(
        rows=len(by_set),
        cols=1,
        shared_xaxes="all",
        vertical_spacing=GAP / plot if len(by_set) > 1 else 0,
    )
    comparisons = [comparison for found in by_set.values() for comparison in found.values()]
    lay_out(
        figure,
        title=f"What each strategy changes against {short_tag(scene.baseline)}",
        subtitle=_subtitle(scene, chosen, drawn, comparisons),
        width=TEXT_WIDTH,
        height=plot + TOP + BOTTOM,
        top=TOP,
    )
    looks = [scene.looks[group.label] for group in drawn]
    span = _span(comparisons)
    near = 0.009 * (span[1] - span[0])
    for row, (name, found) in enumerate(by_set.items(), start=1):
        figure.add_scatter(
            x=[0, 0],
            y=[-0.85, len(drawn) - 0.4],
            mode="lines",
            name="no difference",
            line={"color": INK, "width": 1},
            hoverinfo="skip",
            row=row,
            col=1,
        )
        places = {group.label: len(drawn) - 1 - i for i, group in enumerate(drawn)}
        for group, look in zip(drawn, looks, strict=True):
            if group.label in found:
                _add_row(figure, found[group.label], group, look, places[group.label], row, near)
        _add_words(figure, scene, name, row)
        add_notes(figure, _columns(found, places, row))
    figure.update_xaxes(range=list(span), showticklabels=True, showgrid=True, nticks=9)
    name_rows(figure, drawn, looks, room_below=0.85)
    figure.update_layout(margin={"l": name_margin(drawn, looks), "r": 136, "b": BOTTOM})
    return figure


def _subtitle(
    scene: Scene, chosen: Sequence[Group], drawn: Sequence[Group], comparisons: Sequence[Comparison]
) -> str:
    seeds = any(comparison.over_seeds is not None for comparison in comparisons)
    words = any(comparison.over_words is not None for comparison in comparisons)
    own = scene.baseline.label if scene.baseline is not None else None
    strangers = sum(group.label != own for group in chosen) - len(drawn)
    return (
        where(scene.groups)
        + "difference on the same rows, seed by seed · dots: each seed; diamond: their mean"
        + (" · thick: 95 % interval for new seeds with these trigger words" if seeds else "")
        + (" · thin: for new words too" if words else "")
        + (f" · {strangers} more have no seed in common with it" if strangers else "")
        + scene.left_out(chosen)
    )


def _by_set(scene: Scene, drawn: Sequence[Group]) -> dict[str, dict[str, Comparison]]:
    """Set → group's label → comparison: separation first, then the leak, then where the habit is wanted."""
    labels = {group.label for group in drawn}
    found: dict[str, dict[str, Comparison]] = {}
    for comparison in scene.comparisons:
        if comparison.group in labels:
            found.setdefault(comparison.set, {})[comparison.group] = comparison
    first = [SEPARATION, *([scene.leak_set] if scene.leak_set else [])]
    order = [name for name in dict.fromkeys([*first, *HABIT_SETS, *found]) if name in found]
    if len(drawn) > MOST_ROWS_OF_ALL_SETS:
        order = [name for name in order if name in first] or order[:1]
    return {name: found[name] for name in order}


def _span(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """What the axis shows: zero, every seed and every interval, with a little room."""
    ends = [0.0, *(value for c in comparisons for value in c.differences)]
    ends += [
        end
        for c in comparisons
        for interval in (c.over_seeds, c.over_words)
        if interval is not None
        for end in (interval.low, interval.high)
    ]
    low, high = min(*ends, -0.05), max(*ends, 0.05)
    room = 0.04 * (high - low)
    return low - room, high + room


def _add_row(
    figure: go.Figure,
    comparison: Comparison,
    group: Group,
    look: Style,
    place: int,
    row: int,
    near: float,
) -> None:
    """`near`: dots closer than this stand one below the other."""
    tag = plain(short_tag(group))
    for interval, width, name in (
        (comparison.over_words, 1.8, "new words too"),
        (comparison.over_seeds, 6.0, "new seeds"),
    ):
        if interval is not None:
            figure.add_scatter(
                x=[interval.low, interval.high],
                y=[place, place],
                mode="lines",
                name=name,
                line={"color": look.hue.mark, "width": width},
                hovertemplate=f"{tag}: {interval.low:+.3f} to {interval.high:+.3f}, {name}<extra></extra>",
                row=row,
                col=1,
            )
    figure.add_scatter(
        x=list(comparison.differences),
        y=[place - 0.34 - 0.1 * turn for turn in _turns(comparison.differences, near)],
        mode="markers",
        name="seeds",
        marker={"color": look.hue.text, "size": 6, "opacity": 0.8},
        customdata=list(comparison.seeds),
        hovertemplate=f"{tag}, seed %{{customdata}}: %{{x:+.3f}}<extra></extra>",
        row=row,
        col=1,
    )
    settle = comparison.seeds_to_settle
    figure.add_scatter(
        x=[comparison.mean],
        y=[place],
        mode="markers",
        name="mean",
        marker={
            "color": look.hue.text,
            "symbol": "diamond",
            "size": 10,
            "line": {"width": 1, "color": PAPER},
        },
        hovertemplate=f"{tag}: {comparison.mean:+.3f}"
        + (f"; {settle} seeds would settle a difference of 0.1" if settle is not None else "")
        + "<extra></extra>",
        row=row,
        col=1,
    )


def _turns(values: Sequence[float], near: float) -> list[int]:
    """How many earlier values each one would cover: their dots stand one below the other."""
    return [min(sum(abs(value - other) < near for other in values[:i]), 3) for i, value in enumerate(values)]


def _p_value(p: float | None) -> str:
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _add_words(figure: go.Figure, scene: Scene, name: str, row: int) -> None:
    """A panel's title, the columns' headings, and which direction is better."""
    wanted = name == SEPARATION or scene.sets.get(name, True)
    # Another experiment of the report may have another leak set, in a figure that looks just like this one.
    leak = scene.leak_set if scene.groups[0].place else "leak"
    remark, less, more = (
        (f"habit kept − {leak}", "← separates worse", "separates better →")
        if name == SEPARATION
        else ("habit wanted", "← shows it less: worse", "shows it more: better →")
        if wanted
        else ("a leak", "← leaks less: better", "leaks more: worse →")
    )
    add_title(figure, panel_title(name, remark), row=row, col=1)
    domain = {"xref": f"x{row if row > 1 else ''} domain", "yref": f"y{row if row > 1 else ''} domain"}
    for shift, heading in COLUMNS:
        figure.add_annotation(
            **domain,
            x=1,
            y=1,
            xanchor="left",
            yanchor="bottom",
            xshift=shift,
            yshift=5,
            text=heading,
            showarrow=False,
            font={"size": 12, "color": MUTED},
        )
    for x, text in ((0, less), (1, more)):
        figure.add_annotation(
            **domain,
            x=x,
            y=0,
            xanchor="right" if x else "left",
            yanchor="top",
            yshift=-22,
            text=f"<b>{text}</b>" if "better" in text else text,
            showarrow=False,
            font={"size": 12, "color": INK if "better" in text else MUTED},
        )


def _columns(
    found: Mapping[str, Comparison], places: Mapping[str, int], row: int
) -> Iterator[dict[str, object]]:
    """What stands right of each row: p after Holm, and the number of seeds."""
    axis = str(row) if row > 1 else ""
    for label, comparison in found.items():
        texts = (_p_value(comparison.p_holm), str(len(comparison.seeds)))
        for (shift, _), text in zip(COLUMNS, texts, strict=True):
            yield {
                "xref": f"x{axis} domain",
                "yref": f"y{axis}",
                "x": 1,
                "y": places[label],
                "xanchor": "left",
                "xshift": shift,
                "text": plain(text),
                "showarrow": False,
                "font": {"size": 12, "color": INK},
            }
