"""The figures of a report: final rates, the trade-off plane, learning curves. Each takes the groups of one
experiment (others have other data) and returns a figure; nothing here reads or writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from triggerctl.report.curves import Curve, draw_curves, epoch_axis, label_ends, share_axis
from triggerctl.report.drawing import INK, MUTED, PAPER, lay_out, plain
from triggerctl.report.rows import Group, shown_sets
from triggerctl.report.styles import LONGEST_LINE, MOST_NAMES, Style, one_seed_each, where, whisker

WIDTH = 1100


def rates_figure(groups: Sequence[Group], looks: Mapping[str, Style]) -> go.Figure:
    """Final trigger response rates: a panel a set, a bar a group (mean over seeds), a dot a seed, whiskers
    for the 95 % interval."""
    sets = shown_sets(groups)
    rows = len(groups)
    figure = make_subplots(
        rows=1,
        cols=max(len(sets), 1),
        shared_yaxes=True,
        horizontal_spacing=0.018,
        subplot_titles=_panel_titles(sets),
    )
    for column, name in enumerate(sets, start=1):
        for place, group in enumerate(groups):
            _add_rate(figure, group, name, looks[group.label], rows - 1 - place, column)
    lay_out(
        figure,
        title="How often each strategy shows the habit, by evaluation set",
        subtitle=where(groups)
        + "trigger response rate at the end of training · "
        + (
            "one seed; whiskers: 95 % Wilson interval over rows"
            if one_seed_each(groups)
            else "bar: mean over seeds; dots: each seed; whiskers: 95 % t-interval over seeds"
        ),
        width=WIDTH,
        height=150 + 40 * max(rows, 2),
        top=104,
    )
    figure.update_xaxes(
        range=[0, 1.34], tickvals=[0, 0.5, 1], ticktext=["0", "0.5", "1"], showgrid=True, showline=False
    )
    figure.update_yaxes(
        range=[-0.6, rows - 0.4],
        tickvals=[rows - 1 - place for place in range(rows)],
        ticktext=[_row_name(group, looks[group.label].number) for group in groups],
        tickfont={"size": 13, "color": INK},
        ticks="",
        showgrid=False,
    )
    figure.update_layout(margin_l=_label_margin(groups), margin_b=40)
    _tidy_panel_titles(figure)
    return figure


def _add_rate(figure: go.Figure, group: Group, name: str, look: Style, place: int, column: int) -> None:
    summary = group.summary(name)
    if summary is None:
        _add_text(figure, "–", 1.17, place, column, MUTED)
        return
    interval = group.interval(name)
    figure.add_bar(
        x=[summary.mean],
        y=[place],
        orientation="h",
        width=0.62,
        marker={"color": look.hue.mark, "line": {"width": 0}},
        opacity=0.55,
        hovertemplate=f"{plain(group.tag)}, {plain(name)}: {summary.mean:.3f}<extra></extra>",
        row=1,
        col=column,
    )
    if interval is not None:
        figure.add_scatter(
            x=[summary.mean],
            y=[place],
            mode="markers",
            marker={"size": 0.1, "color": INK},
            error_x=whisker(summary.mean, interval, INK, thickness=1.4, cap=5),
            hoverinfo="skip",
            row=1,
            col=column,
        )
    if len(group.runs) > 1:
        seeds = [(run.seed, rate) for run in group.runs if (rate := run.rate(name)) is not None]
        shift = 0.44 / max(len(seeds) - 1, 1)
        figure.add_scatter(
            x=[rate for _, rate in seeds],
            y=[place + 0.22 - i * shift for i in range(len(seeds))],
            mode="markers",
            marker={"color": look.hue.text, "size": 7, "line": {"width": 1, "color": PAPER}},
            cliponaxis=False,
            customdata=[seed for seed, _ in seeds],
            hovertemplate=f"{plain(group.tag)}, seed %{{customdata}}: %{{x:.3f}}<extra></extra>",
            row=1,
            col=column,
        )
    _add_text(figure, f"{summary.mean:.2f}", 1.17, place, column, INK)


def _add_text(figure: go.Figure, text: str, x: float, y: float, column: int, colour: str) -> None:
    figure.add_annotation(
        x=x, y=y, text=text, showarrow=False, font={"size": 12.5, "color": colour}, row=1, col=column
    )


def curves_figure(groups: Sequence[Group], looks: Mapping[str, Style]) -> go.Figure:
    """Trigger response rates over epochs: a panel a set, a bold line a group (mean over seeds), a faint one a
    seed."""
    sets = shown_sets(groups)
    figure = make_subplots(
        rows=1,
        cols=max(len(sets), 1),
        shared_yaxes=True,
        horizontal_spacing=0.022,
        subplot_titles=_panel_titles(sets),
    )
    for column, name in enumerate(sets, start=1):
        means = []
        for group in groups:
            look = looks[group.label]
            runs = [_run_curve(group, i, name, look) for i in range(len(group.runs))]
            if len(runs) > 1:
                draw_curves(figure, runs, row=1, col=column, width=1, opacity=0.45, markers=False)
            means.append(_mean_curve(group.tag, runs, look))
        draw_curves(figure, means, row=1, col=column)
        epoch_axis(figure, means, row=1, col=column)
        if column == len(sets):
            last = means
    top, bottom = 104, 60
    height = max(400, top + bottom + 18 * len(groups))
    lay_out(
        figure,
        title="When the habit is learnt, and when it leaks",
        subtitle=where(groups)
        + "trigger response rate after each epoch · "
        + ("one seed" if one_seed_each(groups) else "bold: mean over seeds; thin: each seed"),
        width=WIDTH,
        height=height,
        top=top,
    )
    shown = share_axis(figure, "")
    figure.update_xaxes(title_text="epoch", title_standoff=6)
    figure.update_layout(margin={"l": 48, "b": bottom})
    if sets:
        axis = str(len(sets)) if len(sets) > 1 else ""
        label_ends(
            figure,
            last,
            pixels=height - top - bottom,
            value_range=shown,
            axis=axis,
            room=_label_margin(groups) + 44,
        )
    _tidy_panel_titles(figure)
    return figure


def _run_curve(group: Group, index: int, name: str, look: Style) -> Curve:
    run = group.runs[index]
    points = tuple((point.epoch, point.rates[name]) for point in run.curve if name in point.rates)
    return Curve(f"{group.tag}, seed {run.seed}", look.hue, points, symbol=look.symbol)


def _mean_curve(label: str, runs: Sequence[Curve], look: Style) -> Curve:
    """The mean at every evaluation that all seeds have; a run's last point of an epoch counts (weights may
    change after training)."""
    by_epoch = [dict(run.points) for run in runs if run.points]
    shared = sorted(set.intersection(*(set(points) for points in by_epoch))) if by_epoch else []
    points = tuple((epoch, sum(p[epoch] for p in by_epoch) / len(by_epoch)) for epoch in shared)
    return Curve(label, look.hue, points, dash=look.dash, symbol=look.symbol)


def _panel_titles(sets: Mapping[str, bool]) -> list[str]:
    return [
        f"<b>{plain(name)}</b><br><span style='color:{MUTED}'>{'habit wanted' if wanted else 'a leak'}</span>"
        for name, wanted in sets.items()
    ]


def _tidy_panel_titles(figure: go.Figure) -> None:
    """Panel titles in the figure's own type: make_subplots writes them as annotations without an axis."""
    figure.for_each_annotation(
        lambda note: note.update(font={"size": 12.5, "color": INK}, yshift=4),
        selector={"xref": "paper", "yref": "paper"},
    )


def _row_name(group: Group, number: int | None) -> str:
    """A group's name before its row; what is too long for one line goes on to a second, smaller one."""
    ahead = f"<b>{number}</b>  " if number is not None else ""
    if len(group.tag) <= LONGEST_LINE:
        return f"{ahead}{plain(group.tag)}  "
    name, _, rest = group.tag.partition(" · ")
    short = rest if len(rest) <= LONGEST_LINE else f"{rest[: LONGEST_LINE - 1]}…"
    return f"{ahead}{plain(name)}  <br><span style='font-size:11px;color:{MUTED}'>{plain(short)}  </span>"


def _label_margin(groups: Sequence[Group]) -> int:
    """Pixels that the longest name needs at 13 px type."""
    longest = max((min(len(group.tag), LONGEST_LINE) for group in groups), default=0)
    return max(40 + round(7.2 * longest) + (24 if len(groups) > MOST_NAMES else 0), 90)
