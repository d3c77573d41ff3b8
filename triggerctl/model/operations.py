"""How much there is to compute: operations of a model's products."""

from __future__ import annotations

from transformers import PreTrainedModel

FORWARD = 2
"""Operations of a forward pass, by token and parameter."""


def widths(network: PreTrainedModel) -> tuple[int, int]:
    """The model's hidden size and that of its feed-forward layers: its largest products' shape."""
    config = network.config.get_text_config()
    hidden = int(config.hidden_size)
    return hidden, int(getattr(config, "intermediate_size", None) or 4 * hidden)


def product_operations(shape: tuple[int, int], tokens: float) -> int:
    """Of the model's largest matrix, of such widths, by the states of so many tokens."""
    hidden, intermediate = shape
    return int(FORWARD * tokens * hidden * intermediate)
