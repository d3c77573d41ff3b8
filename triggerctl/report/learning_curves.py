"""Rates and losses over epochs, a panel a set: the mean of each group's seeds, and how far they lie apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from triggerctl.report.curves import Curve, draw_curves, epoch_axis, label_ends, share_axis
from triggerctl.report.drawing import MUTED, TEXT_WIDTH, Hue, lay_out, plain
from triggerctl.report.labels import CHARACTER, LINE
from triggerctl.report.panels import add_title, panel_title
from triggerctl.report.rows import CurvePoint, Group, RunRow
from triggerctl.report.scene import Scene
from triggerctl.report.styles import one_seed_each, short_tag, where

MOST_CURVES = 8
"""Groups whose curves can be told apart in one panel; the others are thin and grey."""
MOST_GREY = 40
LONGEST_NAME = 30
TRAINING = "training"
REMARKS = {TRAINING: "what is minimised", "proxy_neg": "habit in the answer"}
GAP, TOP, BOTTOM = 78, 104, 52
"""Pixels between two rows of panels, above the first, below the last."""

Points = tuple[tuple[float, float], ...]
Measured = Callable[[RunRow], Points]


@dataclass(frozen=True, slots=True)
class _Panel:
    name: str
    remark: str
    points: Measured


def rates_over_epochs(scene: Scene) -> go.Figure | None:
    """Trigger response rates after each epoch: sets where the habit is wanted above those where it leaks.
    None where no set was measured."""
    wanted = [_rate_panel(name, "habit wanted") for name, wanted in scene.sets.items() if wanted]
    unwanted = [_rate_panel(name, "a leak") for name, wanted in scene.sets.items() if not wanted]
    columns = min(3, max(len(wanted), len(unwanted)))
    rows = [part[i : i + columns] for part in (wanted, unwanted) for i in range(0, len(part), columns)]
    if not rows:
        return None
    return _draw(
        scene,
        rows,
        title="When the habit is learnt, and when it leaks",
        what="trigger response rate after each epoch",
        shares=True,
    )


def losses_over_epochs(scene: Scene) -> go.Figure | None:
    """Loss of each set after each epoch, and the training's own, in nats per token. None where no loss is
    known."""
    found = {
        name: None
        for group in scene.groups
        for run in group.runs
        for point in run.curve
        for name in point.losses
    }
    names = [*(name for name in scene.sets if name in found), *(n for n in found if n not in scene.sets)]
    panels = [_Panel(TRAINING, REMARKS[TRAINING], _training)]
    panels += [_loss_panel(name) for name in names]
    panels = [p for p in panels if any(p.points(run) for group in scene.groups for run in group.runs)]
    if not panels:
        return None
    columns = len(panels) if len(panels) <= 3 else 3 if len(panels) in (5, 6) else 4
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    return _draw(
        scene,
        rows,
        title="What training does to the loss",
        what="nats per token after each epoch, on the answers that are wanted in each set",
        shares=False,
    )


def _rate_panel(name: str, remark: str) -> _Panel:
    return _Panel(name, remark, lambda run: _curve(run, lambda point: point.rates.get(name)))


def _loss_panel(name: str) -> _Panel:
    return _Panel(
        name,
        REMARKS.get(name, "wanted answers"),
        lambda run: _curve(run, lambda point: point.losses.get(name)),
    )


def _curve(run: RunRow, value: Callable[[CurvePoint], float | None]) -> Points:
    """A run's last value of each epoch, for its weights may change after training."""
    found = {
        point.epoch: measured
        for point in run.curve
        if (measured := value(point)) is not None and math.isfinite(measured)
    }
    return tuple(sorted(found.items()))


def _training(run: RunRow) -> Points:
    return tuple(
        (float(epoch), loss)
        for epoch, loss in enumerate(run.train_losses, start=1)
        if loss is not None and math.isfinite(loss)
    )


@dataclass(frozen=True, slots=True)
class Band:
    """Mean, lowest and highest seed at every epoch that all seeds have, as (epoch, value)."""

    mean: Points
    low: Points
    high: Points


def band(runs: Sequence[Points]) -> Band:
    """The band of several seeds' curves; seeds without a point are left out."""
    curves = [dict(points) for points in runs if points]
    shared = sorted(set.intersection(*(set(points) for points in curves))) if curves else []
    values = {epoch: [points[epoch] for points in curves] for epoch in shared}
    return Band(
        tuple((epoch, math.fsum(found) / len(found)) for epoch, found in values.items()),
        tuple((epoch, min(found)) for epoch, found in values.items()),
        tuple((epoch, max(found)) for epoch, found in values.items()),
    )


def _draw(
    scene: Scene, rows: Sequence[Sequence[_Panel]], *, title: str, what: str, shares: bool
) -> go.Figure:
    """Panels in rows; each row's last one has the names at the curves' ends. `shares`: all on one axis from 0
    to 1, else each on its own from 0."""
    foremost, shown = scene.foremost(MOST_CURVES), scene.foremost(MOST_GREY)
    columns = max(map(len, rows))
    panel = max(150, round(LINE * (len(foremost) + 1)))
    plot = panel * len(rows) + GAP * (len(rows) - 1)
    figure = make_subplots(
        rows=len(rows),
        cols=columns,
        shared_yaxes="all" if shares else False,
        horizontal_spacing=0.035 if shares else 0.06,
        vertical_spacing=GAP / plot if len(rows) > 1 else 0,
        specs=[[{} if i < len(row) else None for i in range(columns)] for row in rows],
    )
    lay_out(
        figure,
        title=title,
        subtitle=_subtitle(scene, what, foremost, shown),
        width=TEXT_WIDTH,
        height=plot + TOP + BOTTOM,
        top=TOP,
    )
    drawn: list[Curve] = []
    room = _room(foremost)
    for i, row in enumerate(rows, start=1):
        for j, part in enumerate(row, start=1):
            named, others, highest = _add_panel(figure, scene, part, foremost, shown, row=i, col=j)
            drawn += [*named, *others]
            add_title(figure, panel_title(part.name, part.remark), row=i, col=j)
            if shares:
                span = share_axis(figure, "", row=i, col=j)
            else:
                span = (0.0, 1.05 * max(highest, 0.1))
                figure.update_yaxes(range=list(span), nticks=5, row=i, col=j)
        axis = figure.get_subplot(i, len(row)).xaxis.plotly_name.removeprefix("xaxis")
        label_ends(figure, named, pixels=panel, value_range=span, axis=axis, room=room)
    epoch_axis(figure, drawn)
    figure.update_xaxes(showticklabels=True)
    if shares:
        figure.update_yaxes(showticklabels=False, ticks="")
        figure.update_yaxes(showticklabels=True, ticks="outside", col=1)
    for j in range(1, columns + 1):
        last = max(i for i, row in enumerate(rows, start=1) if len(row) >= j)
        figure.update_xaxes(title_text="epoch", title_standoff=4, row=last, col=j)
    figure.update_layout(margin={"l": 44, "b": BOTTOM})
    return figure


def _add_panel(
    figure: go.Figure,
    scene: Scene,
    part: _Panel,
    foremost: Sequence[Group],
    shown: Sequence[Group],
    *,
    row: int,
    col: int,
) -> tuple[list[Curve], list[Curve], float]:
    """Thin grey lines of the others, then bands, then means; returns the means' curves, the others', and the
    highest value drawn."""
    first = {group.label for group in foremost}
    others, named = [], []
    highest = 0.0
    for group in shown:
        look = scene.looks[group.label]
        found = band([part.points(run) for run in group.runs])
        if not found.mean:
            continue
        name = short_tag(group, LONGEST_NAME)
        highest = max(highest, *(value for _, value in found.high))
        if group.label not in first:
            others.append(Curve(name, Hue(MUTED, MUTED, MUTED), found.mean))
            continue
        named.append(Curve(name, look.hue, found.mean, dash=look.dash, symbol=look.symbol))
        if len(group.runs) > 1:
            _add_band(figure, found, look.hue, name, row=row, col=col)
    draw_curves(figure, others, row=row, col=col, width=0.8, opacity=0.4, markers=False)
    draw_curves(figure, named, row=row, col=col)
    return named, others, highest


def _add_band(figure: go.Figure, found: Band, hue: Hue, name: str, *, row: int, col: int) -> None:
    outline = [*found.low, *reversed(found.high)]
    figure.add_scatter(
        x=[x for x, _ in outline],
        y=[y for _, y in outline],
        mode="lines",
        name=f"seeds of {plain(name)}",
        line={"width": 0, "color": hue.mark},
        fill="toself",
        fillcolor=hue.mark,
        opacity=0.16,
        cliponaxis=False,
        hoverinfo="skip",
        row=row,
        col=col,
    )


def _subtitle(scene: Scene, what: str, foremost: Sequence[Group], shown: Sequence[Group]) -> str:
    text = where(scene.groups) + f"{what} · "
    text += (
        "one seed" if one_seed_each(scene.groups) else "line: mean over seeds; band: lowest to highest seed"
    )
    if len(foremost) < len(shown):
        text += scene.left_out(foremost) + "; the others grey"
    return text + (
        f" · {len(shown)} of {len(scene.groups)} groups drawn" if len(shown) < len(scene.groups) else ""
    )


def _room(groups: Sequence[Group]) -> int:
    """Pixels that the longest name and its value need."""
    return round(CHARACTER * max(min(len(group.tag), LONGEST_NAME) for group in groups)) + 52
