"""The figures of a run, as the engine asks for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triggerctl.config.models import ExperimentConfig
    from triggerctl.experiment.results import TriggerctlResults
    from triggerctl.report.images import Drawer
    from triggerctl.training.events import Event, Listener
    from triggerctl.training.outcome import Figures


STARTS_BEFORE = 5.0
"""Seconds of training left at which a browser is started again: it is up in two or three, most of them spent
waiting."""

IDLE_FOR = 60.0
"""Seconds of training left beyond which a browser is ended: it would lie idle beside the training of days."""


@contextlib.contextmanager
def drawer_for_the_end() -> Iterator[tuple[Drawer, Listener]]:
    """What draws the figures of one run, and the listener that ends it where the training takes long, and
    starts it again when that is nearly done. It comes up at once, beside the libraries that training takes:
    they are loaded on one core, while the training wants all."""
    from triggerctl.report.images import Drawer
    from triggerctl.training.events import Stepped

    def hear(event: Event) -> None:
        if isinstance(event, Stepped) and event.seconds_left > IDLE_FOR:
            drawer.close(kindly=False)
        elif isinstance(event, Stepped) and event.seconds_left <= STARTS_BEFORE:
            drawer.start()

    with Drawer() as drawer:
        drawer.start()
        yield drawer, hear


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
        return write_run_figures(
            results, folder, train_losses=train_losses, extra_wanted=wanted, drawer=drawer
        )

    return draw
