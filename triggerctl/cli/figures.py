"""The figures of a run, as the engine asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triggerctl.config.models import ExperimentConfig
    from triggerctl.experiment.results import TriggerctlResults
    from triggerctl.report.images import Drawer
    from triggerctl.training.outcome import Figures


def new_drawer() -> Drawer:
    """What a worker that trains many runs keeps, so that one browser draws the figures of all. It comes up
    while the worker loads what training takes."""
    from triggerctl.report.images import Drawer

    drawer = Drawer(tabs=2)
    drawer.start()
    return drawer


def figures_of(config: ExperimentConfig, drawer: Drawer | None = None) -> Figures:
    """What draws the figures of a run with this configuration; `drawer`: of who trains many runs."""

    def draw(folder: Path, results: TriggerctlResults, train_losses: list[float]) -> str | None:
        from triggerctl.report.run_figures import write_run_figures

        wanted = {name: extra.nice for name, extra in config.extra_evaluation.items()}
        report = write_run_figures(
            results, folder, train_losses=train_losses, extra_wanted=wanted, drawer=drawer
        )
        return report.note

    return draw
