"""What all figures share: colours, type, axes.

The hues are Okabe and Ito's (2008, Color universal design) but for grey and wine, which were chosen to lie
apart from them in simulated red, green and blue blindness too; text takes a darker shade of its mark's hue,
so that it can be read on paper. No figure leans on hue alone: names, markers and dashes say the same in grey.
`DARK` maps each colour used here to its counterpart on a dark page: the page recolours a figure by replacing
one with the other.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import plotly.graph_objects as go

INK = "#1f2328"
MUTED = "#59636e"
GRID = "#e4e7eb"
PAPER = "#ffffff"
TEXT_WIDTH, COLUMN_WIDTH = 820, 560
"""Pixels of a figure for the whole text width of a page, 6.75 inches, where 12 px type is printed at 7
points; and of one that may stand in a narrower place."""
SUBTITLE_LINE = 17
FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"


@dataclass(frozen=True, slots=True)
class Hue:
    """One series' colour: `mark` for lines and bars, `text` for its label, `dark` for both on a dark page."""

    mark: str
    text: str
    dark: str


GREY = Hue("#5f6772", "#4d5560", "#d0d7de")
BLUE = Hue("#0072b2", "#005d92", "#4a9ade")
VERMILLION = Hue("#d55e00", "#ab4a00", "#ff8b43")
GREEN = Hue("#009e73", "#00704f", "#2ec79b")
PINK = Hue("#cc79a7", "#9a4475", "#e59ac3")
AMBER = Hue("#e69f00", "#8a5f00", "#f2b83b")
SKY = Hue("#56b4e9", "#21719c", "#8accf2")
WINE = Hue("#6a1240", "#6a1240", "#bb6c93")
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

WANTED_SHADES = ("#f1f6fb", "#4b97d2")
UNWANTED_SHADES = ("#fdf3ec", "#e8763a")
"""A rate of 0 and of 1 where the habit is wanted, and where it is not. What lies between has even steps of
lightness, so that it stays in order in grey; none is too dark for text in `INK` (4.5 to 1, on a dark page
too)."""

DARK: Mapping[str, str] = {
    INK: "#e6edf3",
    MUTED: "#a2abb5",
    GRID: "#343b44",
    PAPER: "#14181d",
    **dict(zip(WANTED_SHADES, ("#1b2530", "#2a6aa3"), strict=True)),
    **dict(zip(UNWANTED_SHADES, ("#2b2019", "#a3561f"), strict=True)),
    **{shade: hue.dark for hue in (GREY, *HUES) for shade in (hue.mark, hue.text)},
}


def set_hue(name: str, position: int = 0) -> Hue:
    """The hue of an evaluation set; a user's own sets take turns by `position`."""
    return SET_HUES.get(name, (SKY, WINE)[position % 2])


def plain(text: str) -> str:
    """Text that plotly shows as it stands: its own mark-up characters escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def brief(text: str, longest: int) -> str:
    """Text on one line of at most `longest` characters. What runs from right to left is kept from turning
    its surroundings (Unicode's isolates, which take no room)."""
    line = " ".join(text[: 4 * longest].split())
    if len(line) > longest or len(text) > 4 * longest:
        line = f"{line[: longest - 1]}…"
    return line if line.isascii() or not _TURNS.search(line) else f"\u2068{line}\u2069"


_TURNS = re.compile("[\u0590-\u08ff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc]")


def lay_out(figure: go.Figure, *, title: str, subtitle: str, width: int, height: int, top: int = 76) -> None:
    """Give a figure the common look: a plain sentence as title, what is shown below it, thin grey rules.

    `subtitle`: remarks with " · " between, broken there where they are wider than the figure. `width`,
    `height` and `top` (the margin above the panels) in pixels; each further line of the subtitle adds to
    both.
    """
    lines = _broken(subtitle, (width - 32) / 5.8)
    height += SUBTITLE_LINE * (len(lines) - 1)
    top += SUBTITLE_LINE * (len(lines) - 1)
    figure.update_layout(
        template="none",
        width=width,
        height=height,
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        font={"family": FONT, "size": 13, "color": INK},
        title={
            "text": f"<b>{plain(title)}</b><br>"
            f"<span style='font-size:12.5px;color:{MUTED}'>{'<br>'.join(lines)}</span>",
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


def add_notes(figure: go.Figure, notes: Iterable[Mapping[str, object]]) -> None:
    """Add annotations all at once: plotly copies all there are for each that is added by itself."""
    figure.layout.annotations = [
        *figure.layout.annotations,
        *(go.layout.Annotation(**note) for note in notes),
    ]


def _broken(text: str, room: float) -> list[str]:
    """Remarks on as few lines of `room` characters as they need."""
    lines: list[str] = []
    for remark in text.split(" · "):
        longer = f"{lines[-1]} · {remark}" if lines else remark
        if lines and len(html.unescape(longer)) <= room:
            lines[-1] = longer
        else:
            lines.append(remark)
    return lines
