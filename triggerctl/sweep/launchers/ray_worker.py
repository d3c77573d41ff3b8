"""What a process of a Ray cluster does with an order. Imports nothing heavy at its top: the environment that
the order brings along must be set before torch and the hub's client are loaded."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping

from triggerctl.sweep.launchers.signals import hear

STOP_SIGNALS = ("SIGINT", "SIGTERM")
"""Ray cancels a task that runs by the first, and ends a worker by the second."""

COMPUTING = ("OMP_", "GOMP_", "KMP_", "MKL_", "ONEDNN_", "DNNL_", "ATEN_", "THP_")
CARRIED = ("TRIGGERCTL_", "HF_", "TRANSFORMERS_", "WANDB_", "TOKENIZERS_", *COMPUTING)
"""What the variables begin with that a run is to have as they are where the sweep was started."""


def carried_environment() -> dict[str, str]:
    """The variables that go along with every order: as an argument, not as Ray's runtime environment, which
    its dashboard and its logs show: a token may be among them."""
    return {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}


def obey(folder: str, environment: Mapping[str, str], order: bytes) -> bytes:
    """Carry out a pickled `Check` or `Train`; returns the pickled answer.

    folder: the working folder of the sweep, from which its paths start.
    Raises OSError where that can't be seen from here."""
    with hear(STOP_SIGNALS) as heard:
        os.chdir(folder)
        os.environ.update(environment)
        asked = pickle.loads(order)

        from triggerctl.sweep.cell import train_cell
        from triggerctl.sweep.check import check_cells
        from triggerctl.sweep.launchers.worker import Check

        if isinstance(asked, Check):
            return pickle.dumps(check_cells(asked.jobs, asked.settings))
        return pickle.dumps(train_cell(asked.job, asked.settings, stop=heard.stop))
