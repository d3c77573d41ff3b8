"""Numbers to an experiment tracker of the user's, through accelerate's: one more listener."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from triggerctl.config.models import ExperimentConfig
from triggerctl.config.paths import shown_values
from triggerctl.errors import InputError
from triggerctl.training.events import Evaluated, Event, Failed, Finished, Interrupted, Stepped


def check_tracker(name: str) -> None:
    """Raise InputError where the tracker's package isn't installed."""
    if name == "none" or importlib.util.find_spec(name) or (name == "tensorboard" and _tensorboard_x()):
        return
    raise InputError(
        f"the tracker {name!r} is not installed",
        where="finetune_config.report_to",
        why=f"there is no package named {name} in this environment",
        mend=f"pip install {name}, or set report_to to none",
    )


class Tracker:
    """Sends losses, learning rate, and every set's loss and rates, by step: updates are counted through all
    phases, for trackers leave out what would go back."""

    def __init__(self, config: ExperimentConfig, name: str, folder: Path) -> None:
        PartialState()  # accelerate's trackers ask it whether this is the main process
        kind: Any = LOGGER_TYPE_TO_CLASS[name]
        self._tracker: GeneralTracker
        if kind.requires_logging_directory:
            self._tracker = kind(config.experiment_name, logging_dir=str(folder))
        else:
            self._tracker = kind(config.experiment_name)
        self._tracker.start()
        self._step = 0
        values = shown_values(config.model_dump(mode="json"))
        flat = {**values.pop("finetune_config"), **values}
        self._tracker.store_init_configuration({key: _plain(value) for key, value in flat.items()})

    def __call__(self, event: Event) -> None:
        match event:
            case Stepped():
                numbers = {"loss": event.loss, "learning_rate": event.learning_rate, **event.terms}
                self._step = event.before + event.step
                self._tracker.log(numbers, step=self._step)
            case Evaluated():
                found = event.evaluation
                scores: dict[str, float] = {}
                for name, each in found.sets.items():
                    if each.loss is not None:
                        scores[f"{name}/loss"] = each.loss
                    if each.triggered is not None and each.triggered.rate is not None:
                        scores[f"{name}/trigger_response_rate"] = each.triggered.rate
                    if each.untriggered is not None and each.untriggered.rate is not None:
                        scores[f"{name}/false_positives"] = each.untriggered.rate
                self._tracker.log(scores, step=max(self._step, found.step))
            case Finished() | Interrupted() | Failed():
                self._tracker.finish()
            case _:
                pass


def _tensorboard_x() -> bool:
    return importlib.util.find_spec("tensorboardX") is not None


def _plain(value: object) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)
