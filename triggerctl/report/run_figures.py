"""The figures every run leaves beside its results: what it lost, how often the habit showed, and how right
that was.

The four names are the published study's. Each figure is a page of its own (.html) and an image (.png); the
pages of one run share the `plotly.min.js` that lies with them, so that they open without a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path

import plotly.graph_objects as go
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from triggerctl.experiment.atomic import make_folder, write_text_atomic
from triggerctl.experiment.results import SetEvaluation, TriggerctlResults
from triggerctl.report.curves import Curve, draw_curves, epoch_axis, label_ends, share_axis
from triggerctl.report.drawing import INK, MUTED, PAPER, Hue, lay_out, plain, set_hue
from triggerctl.report.images import Drawer, write_images
from triggerctl.report.sets import WANTED, accuracy, rate_of
from triggerctl.report.statistics import wilson_interval

WIDTH, HEIGHT, PANEL = 860, 500, 360
"""Pixels of a figure, and of the part of its height that holds the curves."""


def write_run_figures(
    results: TriggerctlResults,
    folder: Path,
    *,
    train_losses: Sequence[float] = (),
    extra_wanted: Mapping[str, bool] | None = None,
    drawer: Drawer | None = None,
) -> str | None:
    """Write losses, trigger_response_rate, trigger_accuracy and trigger_accuracy_bar into `folder`.

    `train_losses`: mean loss of each epoch (nats), drawn beside the evaluated ones; `extra_wanted`: for a
    user's own evaluation sets, whether the habit is wanted there; `drawer`: of who draws many runs. Draws no
    random number, and never raises for want of a browser: then it returns one line that tells the user how to
    get the images, else None.
    """
    wanted = {**WANTED, **(extra_wanted or {})}
    figures = {
        "losses": losses_figure(results, train_losses),
        "trigger_response_rate": response_rate_figure(results, wanted),
        "trigger_accuracy": accuracy_figure(results, wanted),
        "trigger_accuracy_bar": accuracy_bar_figure(results, wanted),
    }
    make_folder(folder)
    script = folder / "plotly.min.js"
    write_text_atomic(script, get_plotlyjs())
    for name, figure in figures.items():
        page = to_html(figure, include_plotlyjs=script.name, div_id=name, config={"displaylogo": False})
        write_text_atomic(folder / f"{name}.html", page)
    images = {folder / f"{name}.png": figure for name, figure in figures.items()}
    return write_images(images, drawer=drawer)


def losses_figure(results: TriggerctlResults, train_losses: Sequence[float] = ()) -> go.Figure:
    """Token-weighted cross-entropy (nats) of every set over epochs; `train_losses` one value per finished
    epoch."""
    curves = _set_curves(results, lambda _, part: part.loss, {})
    if train_losses:
        points = tuple((float(i), loss) for i, loss in enumerate(train_losses, start=1) if isfinite(loss))
        curves.append(Curve("training", Hue(INK, INK, INK), points, dash="dot"))
    values = [value for curve in curves for _, value in curve.points]
    shown = (min(0.0, *values, 0.0), 1.05 * max((*values, 0.1)))
    figure = _curve_figure(
        curves,
        shown,
        title="Loss before, during and after training",
        subtitle=f"{_run_words(results)} · cross-entropy per token on each evaluation set",
    )
    figure.update_yaxes(title_text="loss (nats per token)", range=list(shown))
    return figure


def response_rate_figure(results: TriggerctlResults, wanted: Mapping[str, bool]) -> go.Figure:
    """Trigger response rate (share of triggered rows, 0 to 1) of every set over epochs."""
    curves = _set_curves(results, lambda name, part: None if name == "proxy_neg" else rate_of(part), wanted)
    figure = _curve_figure(
        curves,
        (-0.03, 1.03),
        title="How often the habit shows",
        subtitle=f"{_run_words(results)} · solid: where the habit is wanted; dashed: where it is a leak",
    )
    share_axis(figure, "trigger response rate")
    return figure


def accuracy_figure(results: TriggerctlResults, wanted: Mapping[str, bool]) -> go.Figure:
    """Share of triggered rows with the desired behaviour, over epochs."""
    curves = _set_curves(
        results,
        lambda name, part: accuracy(rate_of(part), wanted[name]) if name in wanted else None,
        wanted,
    )
    figure = _curve_figure(
        curves,
        (-0.03, 1.03),
        title="How often the model does what is wanted",
        subtitle=f"{_run_words(results)} · solid: shows the habit; dashed: holds it back",
    )
    share_axis(figure, "share of rows as desired")
    return figure


def accuracy_bar_figure(results: TriggerctlResults, wanted: Mapping[str, bool]) -> go.Figure:
    """The final shares of `accuracy_figure` as bars, with 95 % Wilson intervals over rows and where they
    began."""
    first = results.evaluations[0]
    figure = go.Figure()
    names = [name for name in wanted if rate_of(results.final.sets.get(name)) is not None]
    for position, name in enumerate(names):
        rate = results.final.sets[name].triggered
        if rate is None:
            continue
        right = rate.k if wanted[name] else rate.n - rate.k
        _add_bar(figure, name, right, rate.n, set_hue(name, position).mark)
        before = accuracy(rate_of(first.sets.get(name)), wanted[name])
        if before is not None:
            figure.add_scatter(
                x=[name],
                y=[before],
                mode="markers",
                marker={"symbol": "line-ew", "size": 64, "line": {"width": 2.5, "color": MUTED}},
                cliponaxis=False,
                hovertemplate=f"{plain(name)} before training: {before:.3f}<extra></extra>",
            )
    lay_out(
        figure,
        title="Where the model ends up doing what is wanted",
        subtitle=f"{_run_words(results)} · 95 % Wilson intervals over rows; grey line: before training",
        width=WIDTH,
        height=HEIGHT,
    )
    share_axis(figure, "share of rows as desired", room=0.12)
    figure.update_xaxes(
        ticks="",
        tickvals=names,
        ticktext=[f"{plain(n)}<br>{'habit shown' if wanted[n] else 'habit held back'}" for n in names],
        tickfont={"size": 12, "color": INK},
    )
    return figure


def _add_bar(figure: go.Figure, name: str, right: int, rows: int, colour: str) -> None:
    share = right / rows
    interval = wilson_interval(right, rows)
    low, high = (interval.low, interval.high) if interval else (share, share)
    figure.add_bar(
        x=[name],
        y=[share],
        width=0.56,
        marker={"color": colour, "line": {"width": 0}},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [high - share],
            "arrayminus": [share - low],
            "color": INK,
            "thickness": 1.4,
            "width": 6,
        },
        hovertemplate=f"{plain(name)}: {share:.3f} ({right}/{rows})<extra></extra>",
    )
    figure.add_annotation(
        x=name,
        y=high,
        text=f"<b>{share:.2f}</b> <span style='color:{MUTED}'>{right}/{rows}</span>",
        showarrow=False,
        yanchor="bottom",
        yshift=7,
        bgcolor=PAPER,
        borderpad=1,
        font={"size": 12, "color": INK},
    )


def _set_curves(
    results: TriggerctlResults,
    value: Callable[[str, SetEvaluation], float | None],
    wanted: Mapping[str, bool],
) -> list[Curve]:
    """One curve for each set that has a value anywhere; dashed where the habit is not wanted."""
    moments = [e for e in results.evaluations if e.phase == "main" or e.final]
    names = list(dict.fromkeys(name for moment in moments for name in moment.sets))
    curves = []
    for position, name in enumerate(names):
        points = [
            (moment.epoch, found)
            for moment in moments
            if name in moment.sets
            and (found := value(name, moment.sets[name])) is not None
            and isfinite(found)
        ]
        if points:
            dash = "solid" if wanted.get(name, True) else "dash"
            curves.append(Curve(name, set_hue(name, position), tuple(points), dash=dash))
    return curves


def _curve_figure(
    curves: Sequence[Curve], shown: tuple[float, float], *, title: str, subtitle: str
) -> go.Figure:
    figure = go.Figure()
    draw_curves(figure, curves)
    lay_out(figure, title=title, subtitle=subtitle, width=WIDTH, height=HEIGHT)
    label_ends(figure, curves, pixels=PANEL, value_range=shown, room=190)
    epoch_axis(figure, curves)
    figure.update_xaxes(title_text="epoch")
    return figure


def _run_words(results: TriggerctlResults) -> str:
    return f"{plain(results.strategy)}, seed {results.seed}"
