"""What all figures share: colours, type, axes.

The hues are Okabe and Ito's (2008, Color universal design), told apart by readers of every common colour
vision; text takes a darker shade of its mark's hue, so that it can be read on paper. `DARK` maps each colour
used here to its counterpart on a dark page: the page recolours a figure by replacing one with the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import plotly.graph_objects as go

INK = "#1f2328"
MUTED = "#59636e"
GRID = "#e4e7eb"
PAPER = "#ffffff"
FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"


@dataclass(frozen=True, slots=True)
class Hue:
    """One series' colour: `mark` for lines and bars, `text` for its label, `dark` for both on a dark page."""

    mark: str
    text: str
    dark: str


GREY = Hue("#7d8590", "#4d5560", "#a3abb5")
BLUE = Hue("#0072b2", "#005d92", "#56a8e6")
VERMILLION = Hue("#d55e00", "#ab4a00", "#ff8b43")
GREEN = Hue("#009e73", "#00704f", "#2ec79b")
PINK = Hue("#cc79a7", "#9a4475", "#e59ac3")
AMBER = Hue("#e69f00", "#8a5f00", "#f2b83b")
SKY = Hue("#56b4e9", "#21719c", "#8accf2")
WINE = Hue("#882255", "#7a1e4c", "#d083a9")
HUES = (BLUE, VERMILLION, GREEN, PINK, AMBER, SKY, WINE)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star")
DASHES = ("solid", "dash", "dot", "dashdot")

SET_HUES: Mapping[str, Hue] = {
    "outcome": BLUE,
    "collateral": GREEN,
    "proxy": AMBER,
    "truth": VERMILLION,
    "truth_minus_proxy": PINK,
    "proxy_neg": GREY,
}
"""Cool hues where the habit is wanted, warm ones where it is not."""

DARK: Mapping[str, str] = {
    INK: "#e6edf3",
    MUTED: "#a2abb5",
    GRID: "#343b44",
    PAPER: "#14181d",
    **{shade: hue.dark for hue in (GREY, *HUES) for shade in (hue.mark, hue.text)},
}


def set_hue(name: str, position: int = 0) -> Hue:
    """The hue of an evaluation set; a user's own sets take turns by `position`."""
    return SET_HUES.get(name, (SKY, WINE)[position % 2])


def plain(text: str) -> str:
    """Text that plotly shows as it stands: its own mark-up characters escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def lay_out(figure: go.Figure, *, title: str, subtitle: str, width: int, height: int, top: int = 76) -> None:
    """Give a figure the common look: a plain sentence as title, what is shown below it, thin grey rules.

    `width`, `height` and `top` (the margin above the panels) in pixels.
    """
    figure.update_layout(
        template="none",
        width=width,
        height=height,
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        font={"family": FONT, "size": 13, "color": INK},
        title={
            "text": f"<b>{plain(title)}</b><br>"
            f"<span style='font-size:12.5px;color:{MUTED}'>{subtitle}</span>",
            "font": {"size": 16, "color": INK},
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "pad": {"l": 16},
            "y": 1 - 16 / height,
            "yref": "container",
            "yanchor": "top",
        },
        margin={"l": 64, "r": 24, "t": top, "b": 56},
        hoverlabel={"font": {"family": FONT, "size": 12}, "align": "left"},
        showlegend=False,
    )
    axis = {
        "gridcolor": GRID,
        "linecolor": MUTED,
        "tickcolor": MUTED,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickfont": {"size": 12, "color": MUTED},
        "title": {"font": {"size": 13, "color": INK}, "standoff": 10},
    }
    figure.update_xaxes(**axis, showline=True, showgrid=False)
    figure.update_yaxes(**axis, showline=False, showgrid=True)
