"""What this program uses of peft, from here alone. peft loads bitsandbytes, if that is installed, whether or
not a model is quantised, and it takes longer than to load a small model. A quantised model has loaded it
already, and then it is used."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

NAME = "bitsandbytes"


@contextlib.contextmanager
def unless_loaded_without_bitsandbytes() -> Iterator[None]:
    """Within it peft finds no bitsandbytes, unless it is loaded by now; afterwards it looks anew."""
    if NAME in sys.modules:
        yield
        return
    sys.modules[NAME] = None  # type: ignore[assignment]  # how Python marks what can't be imported
    try:
        yield
    finally:
        del sys.modules[NAME]
        names = sys.modules.get("peft.import_utils")
        if names is not None:
            names.is_bnb_available.cache_clear()
            names.is_bnb_4bit_available.cache_clear()


with unless_loaded_without_bitsandbytes():
    from peft import LoraConfig, PeftModel, get_peft_model, load_peft_weights, prepare_model_for_kbit_training
    from peft.tuners.lora import Linear, LoraLayer, LoraModel
    from peft.utils import get_peft_model_state_dict

__all__ = [
    "Linear",
    "LoraConfig",
    "LoraLayer",
    "LoraModel",
    "PeftModel",
    "get_peft_model",
    "get_peft_model_state_dict",
    "load_peft_weights",
    "prepare_model_for_kbit_training",
    "unless_loaded_without_bitsandbytes",
]
