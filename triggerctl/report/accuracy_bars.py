"""How often each strategy does what is wanted, set by set: the study's figure of accuracies."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from triggerctl.report.drawing import INK, MUTED, PAPER, TEXT_WIDTH, brief, lay_out, plain
from triggerctl.report.panels import LONGEST_SET, add_title, name_margin, name_rows, panel_title
from triggerctl.report.rows import Group
from triggerctl.report.scene import Scene
from triggerctl.report.sets import accuracy
from triggerctl.report.styles import MOST_ROWS, interval_words, one_seed_each, short_tag, where

PANELS_A_ROW = 5
VALUE = 1.24
"""Where the mean stands in figures, on an axis from 0 to 1."""


def accuracy_figure(scene: Scene) -> go.Figure | None:
    """Accuracy at the end of training: the trigger response rate where the habit is wanted, 1 − rate where it
    is not. A panel a set, a bar a group (mean over seeds), a dot a seed, whiskers for the interval. None
    where no set was measured."""
    sets = scene.sets
    if not sets:
        return None
    drawn = scene.foremost(MOST_ROWS)
    columns = min(len(sets), PANELS_A_ROW)
    blocks = -(-len(sets) // columns)
    row_height = 22 if len(drawn) > 12 else 34
    plot = row_height * len(drawn) + 12
    gap, top, bottom = 84, 104, 40
    height = plot * blocks + gap * (blocks - 1)
    figure = make_subplots(
        rows=blocks,
        cols=columns,
        shared_yaxes=True,
        horizontal_spacing=0.02 if columns > 1 else 0,
        vertical_spacing=gap / height if blocks > 1 else 0,
    )
    looks = [scene.looks[group.label] for group in drawn]
    left = name_margin(drawn, looks)
    room = (TEXT_WIDTH - left) / columns
    for place, (name, wanted) in enumerate(sets.items()):
        row, column = divmod(place, columns)
        _add_panel(figure, scene, drawn, name, wanted=wanted, row=row + 1, column=column + 1)
        title = panel_title(name, "habit shown" if wanted else "habit held back", room)
        add_title(figure, title, row=row + 1, col=column + 1)
    one = one_seed_each(scene.groups)
    lay_out(
        figure,
        title="How often each strategy does what is wanted",
        subtitle=where(scene.groups)
        + "accuracy at the end of training: share of rows with a trigger that are answered as wanted there · "
        + ("one seed" if one else "bar: mean over seeds; dots: each seed")
        + f" · {interval_words(scene.groups, 'whiskers')}"
        + scene.left_out(drawn),
        width=TEXT_WIDTH,
        height=height + top + bottom,
        top=top,
    )
    figure.update_xaxes(
        range=[0, 1.44],
        tickvals=[0, 0.5, 1],
        ticktext=["0", "0.5", "1"],
        showgrid=True,
        showline=False,
        showticklabels=True,
    )
    name_rows(figure, drawn, looks, room_below=0.6)
    figure.update_layout(margin={"l": left, "r": 16, "b": bottom}, bargap=0)
    return figure


def _add_panel(
    figure: go.Figure,
    scene: Scene,
    groups: Sequence[Group],
    name: str,
    *,
    wanted: bool,
    row: int,
    column: int,
) -> None:
    """One set: bars, whiskers, seeds and the means in figures, the first group on top."""
    places = {group.label: float(len(groups) - 1 - i) for i, group in enumerate(groups)}
    means = {group.label: accuracy(group.mean(name), wanted) for group in groups}
    known = [group for group in groups if means[group.label] is not None]
    figure.add_bar(
        x=[means[group.label] for group in known],
        y=[places[group.label] for group in known],
        orientation="h",
        width=0.64,
        marker={
            "color": [scene.looks[group.label].hue.mark for group in known],
            "opacity": 0.5,
            "line": {"width": 0},
        },
        customdata=[plain(short_tag(group)) for group in known],
        hovertemplate=f"%{{customdata}}, {plain(brief(name, LONGEST_SET))}: %{{x:.3f}}<extra></extra>",
        row=row,
        col=column,
    )
    _add_whiskers(figure, known, places, name, wanted=wanted, row=row, column=column)
    dots = [dot for group in known for dot in _seeds(scene, group, places[group.label], name, wanted)]
    if dots:
        figure.add_scatter(
            x=[dot[0] for dot in dots],
            y=[dot[1] for dot in dots],
            mode="markers",
            marker={"color": [dot[2] for dot in dots], "size": 6, "line": {"width": 0.8, "color": PAPER}},
            cliponaxis=False,
            name=f"seeds on {plain(brief(name, LONGEST_SET))}",
            customdata=[dot[3] for dot in dots],
            hovertemplate="seed %{customdata}: %{x:.3f}<extra></extra>",
            row=row,
            col=column,
        )
    figure.add_scatter(
        x=[VALUE] * len(groups),
        y=[places[group.label] for group in groups],
        mode="text",
        text=["–" if (mean := means[group.label]) is None else f"{mean:.2f}" for group in groups],
        textfont={"size": 12, "color": [MUTED if means[g.label] is None else INK for g in groups]},
        hoverinfo="skip",
        row=row,
        col=column,
    )


def _seeds(
    scene: Scene, group: Group, place: float, name: str, wanted: bool
) -> list[tuple[float, float, str, int]]:
    """A dot for each seed of a group that has several: (accuracy, height, colour, seed)."""
    if len(group.runs) == 1:
        return []
    found = [
        (run.seed, value) for run in group.runs if (value := accuracy(run.rate(name), wanted)) is not None
    ]
    shift = 0.44 / max(len(found) - 1, 1)
    colour = scene.looks[group.label].hue.text
    return [(value, place + 0.22 - i * shift, colour, seed) for i, (seed, value) in enumerate(found)]


def _add_whiskers(
    figure: go.Figure,
    groups: Sequence[Group],
    places: dict[str, float],
    name: str,
    *,
    wanted: bool,
    row: int,
    column: int,
) -> None:
    """Each group's interval, mirrored where the habit is to be held back."""
    found = []
    for group in groups:
        mean, interval = accuracy(group.mean(name), wanted), group.interval(name)
        if mean is not None and interval is not None:
            low, high = (interval.low, interval.high) if wanted else (1 - interval.high, 1 - interval.low)
            found.append((mean, places[group.label], high - mean, mean - low))
    if not found:
        return
    figure.add_scatter(
        x=[mean for mean, *_ in found],
        y=[place for _, place, *_ in found],
        mode="markers",
        marker={"size": 0.1, "color": INK},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [above for *_, above, _ in found],
            "arrayminus": [below for *_, below in found],
            "color": INK,
            "thickness": 1.3,
            "width": 4,
        },
        name=f"intervals on {plain(brief(name, LONGEST_SET))}",
        hoverinfo="skip",
        row=row,
        col=column,
    )
