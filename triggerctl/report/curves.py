"""Curves over epochs whose names stand at their ends instead of in a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from triggerctl.report.drawing import Hue, plain
from triggerctl.report.labels import LINE, spread


@dataclass(frozen=True, slots=True)
class Curve:
    """`points`: (epoch, value), epochs rising; `dash`: plotly's name of a line style; `symbol`: of a
    marker."""

    name: str
    hue: Hue
    points: tuple[tuple[float, float], ...]
    dash: str = "solid"
    symbol: str = "circle"


def draw_curves(
    figure: go.Figure,
    curves: Sequence[Curve],
    *,
    row: int | None = None,
    col: int | None = None,
    width: float = 2.4,
    opacity: float = 1.0,
    markers: bool = True,
) -> None:
    """Add each curve to the figure, or to one of its panels; `width` in pixels."""
    for curve in curves:
        figure.add_scatter(
            x=[x for x, _ in curve.points],
            y=[y for _, y in curve.points],
            mode="lines+markers" if markers else "lines",
            name=plain(curve.name),
            line={"color": curve.hue.mark, "width": width, "dash": curve.dash},
            marker={"color": curve.hue.mark, "size": 6, "symbol": curve.symbol},
            opacity=opacity,
            cliponaxis=False,
            hovertemplate=f"{plain(curve.name)}: %{{y:.3f}} at epoch %{{x:g}}<extra></extra>",
            row=row,
            col=col,
        )


def label_ends(
    figure: go.Figure,
    curves: Sequence[Curve],
    *,
    pixels: float,
    value_range: tuple[float, float],
    axis: str = "",
    room: int = 150,
) -> None:
    """Write each curve's name and last value right of the panel, moved apart where curves end close
    together.

    `pixels`: height of the panel; `value_range`: what its y axis shows; `axis`: plotly's suffix of the
    panel's axes ("" for the first, "2", …); `room`: pixels of margin the names need.
    """
    ended = [curve for curve in curves if curve.points]
    # Plotly leaves out a note that lies on the very edge.
    edge = 1e-4 * (value_range[1] - value_range[0])
    low, high = value_range[0] + edge, value_range[1] - edge
    gap = LINE * (high - low) / pixels
    heights = spread([curve.points[-1][1] for curve in ended], gap, low=low, high=high)
    for curve, height in zip(ended, heights, strict=True):
        figure.add_annotation(
            xref=f"x{axis} domain",
            yref=f"y{axis}",
            x=1,
            y=height,
            text=f"<b>{plain(curve.name)}</b> {curve.points[-1][1]:.2f}",
            showarrow=False,
            xanchor="left",
            yanchor="middle",
            xshift=12,
            font={"color": curve.hue.text, "size": 12},
        )
    figure.update_layout(margin_r=room)


def share_axis(figure: go.Figure, title: str, *, room: float = 0.03, **panel: int) -> tuple[float, float]:
    """A y axis for shares, 0 to 1 with `room` above and a little below; returns what it shows."""
    shown = (-0.03, 1 + room)
    figure.update_yaxes(title_text=title, range=list(shown), tickvals=[0, 0.25, 0.5, 0.75, 1], **panel)
    return shown


def epoch_axis(figure: go.Figure, curves: Sequence[Curve], **panel: int) -> None:
    """An x axis in whole epochs from 0."""
    last = max((x for curve in curves for x, _ in curve.points), default=1.0)
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 10**6) if last / step <= 10)
    figure.update_xaxes(range=[-0.02 * last, 1.02 * last], tick0=0, dtick=step, **panel)
