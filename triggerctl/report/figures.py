"""Every figure of a report: what draws it, and under which name it is filed.

A figure is a function from a scene to a figure, in a file of its own, and one line here. It returns None
where the results have nothing for it to show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import plotly.graph_objects as go

from triggerctl.report.accuracy_bars import accuracy_figure
from triggerctl.report.comparisons import Comparison
from triggerctl.report.differences import differences_figure
from triggerctl.report.learning_curves import losses_over_epochs, rates_over_epochs
from triggerctl.report.rows import Group
from triggerctl.report.scene import Scene, scene
from triggerctl.report.trade_off import trade_off_figure
from triggerctl.report.trigger_heatmap import triggers_figure

FIGURES: Mapping[str, Callable[[Scene], go.Figure | None]] = {
    "trade_off": trade_off_figure,
    "differences": differences_figure,
    "accuracy": accuracy_figure,
    "triggers": triggers_figure,
    "learning_curves": rates_over_epochs,
    "losses": losses_over_epochs,
}
"""By the name of their files, in the order they are shown."""

MOST_IN_FULL, MOST_EXPERIMENTS = 4, 12
"""Experiments of one report that have all their figures; of more, so many have the first alone. Drawing costs
seconds an experiment, and nobody reads a hundred figures on one page."""


def report_figures(
    groups: Sequence[Group], baseline: Group | None, comparisons: Sequence[Comparison] = ()
) -> dict[str, go.Figure]:
    """Every figure of a report by its file's name, in the order they are shown; of several experiments each
    has its own, for their rates don't compare; `drawn_in_full` says whether that is all there are.
    `comparisons`: of all experiments."""
    experiments = list(dict.fromkeys(group.experiment for group in groups))[:MOST_EXPERIMENTS]
    drawn = FIGURES if drawn_in_full(groups) else dict(list(FIGURES.items())[:1])
    figures: dict[str, go.Figure] = {}
    for experiment in experiments:
        own = [group for group in groups if group.experiment == experiment]
        suffix = f"_{_file_name(experiment)}" if len(experiments) > 1 else ""
        seen = scene(own, baseline, comparisons)
        for name, draw in drawn.items():
            figure = draw(seen)
            if figure is not None:
                figures[_free(name + suffix, figures)] = figure
    return figures


def drawn_in_full(groups: Sequence[Group]) -> bool:
    """Whether the experiments are few enough to have all their figures."""
    return len({group.experiment for group in groups}) <= MOST_IN_FULL


def _file_name(experiment: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", experiment).strip("_")[:60]


def _free(name: str, taken: Mapping[str, object]) -> str:
    """The name, or with a number where two experiments' names are spelt alike in a file's name."""
    turns = (name if turn == 1 else f"{name}_{turn}" for turn in range(1, len(taken) + 2))
    return next(turn for turn in turns if turn not in taken)
