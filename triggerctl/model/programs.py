"""Functions as programs that run without Python, compiled by TorchScript. PyTorch keeps that, but no longer
develops it: where it is missing they run in Python."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from triggerctl.model import llama_layers, llama_likelihood, lora_matrix


def run(function: Callable[..., Any], *given: Any) -> Any:
    """What the function finds. Its program runs as it stands: TorchScript would fit it to the sizes seen,
    which takes longer than it saves where each packing has sizes of its own."""
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        return programs()[function](*given)


@functools.cache
def programs() -> Mapping[Callable[..., Any], Callable[..., Any]]:
    """Each function's program, or the function where there is none to be had."""
    layers = (llama_layers.layers, llama_layers.layers_back, llama_layers.layers_only)
    others = (llama_likelihood.log_likelihood, lora_matrix.wholes)
    return {function: _compiled(function) for function in (*layers, *others)}


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a program of TorchScript's, or itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Callable[..., Any] = torch.jit.script(function)
    except Exception as error:  # noqa: BLE001  whatever it is that another release of PyTorch doesn't know
        logging.getLogger("triggerctl.run").debug("layers run in Python: %s", error)
        return function
    return program
