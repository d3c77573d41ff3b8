"""The trade-off plane: what each strategy keeps of the habit, against what it lets leak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from triggerctl.report.curves import share_axis
from triggerctl.report.drawing import PAPER, Hue, lay_out, plain
from triggerctl.report.labels import around
from triggerctl.report.rows import Group
from triggerctl.report.statistics import Interval, mean_over_seeds
from triggerctl.report.styles import LONGEST_LINE, MOST_NAMES, Style, one_seed_each, where, whisker


def trade_off_figure(groups: Sequence[Group], looks: Mapping[str, Style], leak_set: str) -> go.Figure:
    """Habit kept (mean rate of outcome and collateral) against leak (rate on `leak_set`): large marks are
    means over seeds with 95 % t-intervals both ways, small ones each seed. The upper left corner is the
    aim."""
    figure = go.Figure()
    width, height, margin = 820, 580, {"l": 76, "r": 32, "t": 76, "b": 64}
    lay_out(
        figure,
        title="What each strategy keeps, and what it lets leak",
        subtitle=where(groups)
        + (
            "one seed"
            if one_seed_each(groups)
            else "large marks: mean over seeds with 95 % t-intervals; small marks: each seed"
        )
        + " · aim: upper left"
        + (" · numbers: as in the figure of rates" if len(groups) > MOST_NAMES else ""),
        width=width,
        height=height,
    )
    means: list[tuple[Group, float, float]] = []
    obstacles: list[tuple[float, float]] = []
    for group in groups:
        points = [
            (run.seed, leak, habit)
            for run in group.runs
            if (leak := run.rate(leak_set)) is not None and (habit := run.habit) is not None
        ]
        if not points:
            continue
        look = looks[group.label]
        leaks, habits = (mean_over_seeds([point[i] for point in points]) for i in (1, 2))
        if len(points) > 1:
            _add_seeds(figure, points, look, group.tag)
        _add_cross(figure, leaks.mean, habits.mean, leaks.interval, habits.interval, look.hue)
        obstacles += _along(leaks.mean, habits.mean, leaks.interval, habits.interval)
        obstacles += [(leak, habit) for _, leak, habit in points]
        means.append((group, leaks.mean, habits.mean))
    for group, leak, habit in means:
        look = looks[group.label]
        figure.add_scatter(
            x=[leak],
            y=[habit],
            mode="markers",
            marker={
                "color": look.hue.mark,
                "size": 13,
                "symbol": look.symbol,
                "line": {"width": 1.5, "color": PAPER},
            },
            cliponaxis=False,
            hovertemplate=f"{plain(group.tag)}: leak %{{x:.3f}}, kept %{{y:.3f}}<extra></extra>",
        )
    low, high = share_axis(figure, "habit kept: mean rate of outcome and collateral")
    figure.update_xaxes(
        title_text=f"leak: trigger response rate on {plain(leak_set)}",
        range=[low, high],
        tickvals=[0, 0.25, 0.5, 0.75, 1],
        showgrid=True,
    )
    figure.update_layout(margin=margin)
    size = (width - margin["l"] - margin["r"], height - margin["t"] - margin["b"])
    _label_means(
        figure,
        means,
        obstacles,
        looks,
        low=low,
        scale=(size[0] / (high - low), size[1] / (high - low)),
        size=size,
    )
    return figure


def _add_seeds(
    figure: go.Figure, points: Sequence[tuple[int, float, float]], look: Style, label: str
) -> None:
    figure.add_scatter(
        x=[leak for _, leak, _ in points],
        y=[habit for _, _, habit in points],
        mode="markers",
        marker={"color": look.hue.mark, "size": 6, "symbol": look.symbol, "opacity": 0.6},
        cliponaxis=False,
        customdata=[seed for seed, _, _ in points],
        hovertemplate=f"{plain(label)}, seed %{{customdata}}: "
        "leak %{x:.3f}, kept %{y:.3f}<extra></extra>",
    )


def _add_cross(
    figure: go.Figure, x: float, y: float, across: Interval | None, up: Interval | None, hue: Hue
) -> None:
    """The arms of one mean that have an interval, under the marks."""
    figure.add_scatter(
        x=[x],
        y=[y],
        mode="markers",
        marker={"size": 0.1, "color": hue.mark},
        error_x=None if across is None else whisker(x, across, hue.mark, thickness=1.2, cap=4),
        error_y=None if up is None else whisker(y, up, hue.mark, thickness=1.2, cap=4),
        opacity=0.7,
        hoverinfo="skip",
    )


def _along(x: float, y: float, across: Interval | None, up: Interval | None) -> list[tuple[float, float]]:
    """Points close together along the arms, for labels to keep away from."""
    steps = [i / 60 for i in range(61)]
    level = [(across.low + (across.high - across.low) * t, y) for t in steps] if across is not None else []
    upright = [(x, up.low + (up.high - up.low) * t) for t in steps] if up is not None else []
    return [*level, *upright]


def _label_means(
    figure: go.Figure,
    means: Sequence[tuple[Group, float, float]],
    obstacles: Sequence[tuple[float, float]],
    looks: Mapping[str, Style],
    *,
    low: float,
    scale: tuple[float, float],
    size: tuple[float, float],
) -> None:
    """Write each group's name near its mean; `scale`: pixels per unit, across and up."""

    def pixels(x: float, y: float) -> tuple[float, float]:
        return (x - low) * scale[0], (y - low) * scale[1]

    places = around(
        [pixels(x, y) for _, x, y in means],
        [_mark_name(group, looks[group.label]) for group, _, _ in means],
        obstacles=[pixels(x, y) for x, y in obstacles],
        size=size,
    )
    for (group, x, y), place in zip(means, places, strict=True):
        hue = looks[group.label].hue
        figure.add_annotation(
            x=x,
            y=y,
            ax=place.right,
            ay=-place.up,
            text=f"<b>{plain(_mark_name(group, looks[group.label]))}</b>",
            showarrow=True,
            arrowhead=0,
            arrowwidth=1 if place.far else 0.1,
            arrowcolor=hue.mark if place.far else "rgba(0,0,0,0)",
            standoff=8,
            bgcolor=PAPER,
            borderpad=1,
            font={"size": 12, "color": hue.text},
        )


def _mark_name(group: Group, look: Style) -> str:
    if look.number is not None:
        return str(look.number)
    return group.tag if len(group.tag) <= LONGEST_LINE else f"{group.tag[: LONGEST_LINE - 1]}…"
