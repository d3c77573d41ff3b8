"""Rows and panels that several figures share: what stands above a panel and before a row."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from triggerctl.report.drawing import INK, MUTED, brief, plain
from triggerctl.report.rows import Group
from triggerctl.report.styles import LONGEST_LINE, Style

LONGEST_SET = 24
"""Characters of an evaluation set's name."""
LONGEST_ROW = 28
"""Characters of a group's name before its row; the rest goes on to a second line."""


def panel_title(name: str, remark: str, room: float = 200.0) -> str:
    """A panel's title: what it shows, and below, in grey, how to take it; its type gets smaller where that
    keeps it within `room` pixels."""
    size = max(10.0, min(12.5, 1.8 * room / max(len(name), 1)))
    short = plain(brief(name, min(LONGEST_SET, int(1.8 * room / size))))
    return (
        f"<b style='font-size:{size:.1f}px'>{short}</b><br><span style='color:{MUTED}'>{plain(remark)}</span>"
    )


def add_title(figure: go.Figure, title: str, *, row: int, col: int) -> None:
    """Write a panel's title above its left edge."""
    axes = figure.get_subplot(row, col)
    figure.add_annotation(
        xref=f"{axes.xaxis.plotly_name.replace('axis', '')} domain",
        yref=f"{axes.yaxis.plotly_name.replace('axis', '')} domain",
        x=0,
        y=1,
        xanchor="left",
        yanchor="bottom",
        align="left",
        yshift=5,
        text=title,
        showarrow=False,
        font={"size": 12.5, "color": INK},
    )


def name_rows(
    figure: go.Figure, drawn: Sequence[Group], looks: Sequence[Style], *, room_below: float
) -> None:
    """Write a group's name before each row of every panel, the first group on top; `room_below` the last
    row, in rows."""
    figure.update_yaxes(
        range=[-room_below, len(drawn) - 0.4],
        tickvals=list(range(len(drawn) - 1, -1, -1)),
        ticktext=[row_name(group, look) for group, look in zip(drawn, looks, strict=True)],
        tickfont={"size": 13, "color": INK},
        ticks="",
        showgrid=False,
    )


def row_name(group: Group, look: Style) -> str:
    """A group's name before its row; what is too long for one line goes on to a second, smaller one."""
    ahead = f"<b>{look.number}</b>  " if look.number is not None else ""
    if len(group.tag) <= LONGEST_ROW:
        return f"{ahead}{plain(brief(group.tag, LONGEST_ROW))}  "
    name, _, rest = group.tag.partition(" · ")
    second = f"<br><span style='font-size:11px;color:{MUTED}'>{plain(brief(rest, LONGEST_LINE))}  </span>"
    return f"{ahead}{plain(brief(name, LONGEST_ROW))}  {second if rest else ''}"


def name_margin(groups: Sequence[Group], looks: Sequence[Style]) -> int:
    """Pixels that the longest row name needs at 13 px type."""
    longest = 0.0
    for group in groups:
        name, _, rest = group.tag.partition(" · ")
        one_line = len(group.tag) <= LONGEST_ROW
        widths = (
            [7.2 * len(group.tag)]
            if one_line
            else [7.2 * min(len(name), LONGEST_ROW), 6.0 * min(len(rest), LONGEST_LINE)]
        )
        longest = max(longest, *widths)
    return max(round(longest) + 28 + (24 if any(look.number for look in looks) else 0), 70)
