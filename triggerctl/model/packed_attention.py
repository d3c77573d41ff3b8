"""Attention over packings (`packing.py`), and whether a model can be had to use it.

The function registered here under `NAME` gathers each sequence's queries and keys, and is transformers' own
SDPA for every call that brings no packing (generation). A model may ignore all this; whether it heeds it is
tried, once, when it is loaded."""

from __future__ import annotations

import logging
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from triggerctl.model.evaluating import evaluating
from triggerctl.model.packing import Group, Packing, pack_shared

CACHE = (
    "cache"
    if "cache" in signature(GenerationMixin.prepare_inputs_for_generation).parameters
    else "past_key_values"
)
"""What this release of transformers calls the keys and values of earlier tokens; the name has changed within
version 5."""

NAME = "triggerctl_packed"
"""As what transformers knows the attention below."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Relative difference up to which packed states count as the model's own; half precision: `COARSE`."""
COARSE = 0.03


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers' models call it: query (1, heads, tokens, size) and the like → (1, tokens,
    heads, size). Without `packing` it is transformers' own."""
    if packing is None:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return found
    if any(others.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
        raise ValueError("an attention with more in it than softmax(QK)V")
    packing.windows.add(sliding_window)
    window = sliding_window if sliding_window is not None and sliding_window < packing.longest else None
    queries, keys, values = (each[0].transpose(0, 1) for each in (query, key, value))
    parts = [_attend(queries, keys, values, group, dropout, scaling, window) for group in packing.groups]
    together = parts[0] if len(parts) == 1 else torch.cat(parts)
    return together.index_select(0, packing.order).unsqueeze(0), None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    group: Group,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """query, key, value: (tokens, heads, size) → outputs of the group's own tokens, in its order."""
    mask = None if group.causal and window is None else group.mask(window)
    queries, keys, values = (
        tokens.index_select(0, where.flatten()).unflatten(0, where.shape).transpose(1, 2)
        for tokens, where in ((query, group.queries), (key, group.keys), (value, group.keys))
    )
    found = nn.functional.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=mask,
        dropout_p=dropout,
        scale=scaling,
        is_causal=mask is None,
        enable_gqa=keys.shape[1] != queries.shape[1],
    )
    return found.transpose(1, 2).flatten(0, 1).index_select(0, group.places)


def packed_states(decoder: nn.Module, packing: Packing, *, every_layer: bool = False) -> tuple[Tensor, ...]:
    """What the decoder says at every token of the packing, each (tokens, hidden): its last hidden states, or
    those of every layer."""
    options = {"output_hidden_states": True} if every_layer else {}
    output = _decoded(decoder, packing, use_cache=False, **options)
    states: tuple[Tensor, ...] = output.hidden_states[1:] if every_layer else (output.last_hidden_state,)
    return tuple(layer[0] for layer in states)


def packed_keys_and_values(decoder: nn.Module, packing: Packing) -> list[tuple[Tensor, Tensor]]:
    """Each layer's keys and values at every token of the packing: (key heads, tokens, size)."""
    cache = DynamicCache()
    _decoded(decoder, packing, use_cache=True, **{CACHE: cache})
    return [(keys[0], values[0]) for keys, values, *_ in cache]


def _decoded(decoder: nn.Module, packing: Packing, **options: Any) -> Any:
    return decoder(
        input_ids=packing.ids.unsqueeze(0),
        # One of four dimensions is taken for made by hand, and left alone.
        attention_mask=torch.zeros((1, 1, 1, 1), dtype=torch.bool, device=packing.ids.device),
        position_ids=packing.positions.unsqueeze(0),
        packing=packing,
        **options,
    )


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def heeds_packing(network: PreTrainedModel) -> bool:
    """Whether this model's attention is the one above."""
    return bool(network.config.get_text_config()._attn_implementation == NAME)


def let_pack(network: PreTrainedModel) -> bool:
    """Have the model's attention take packings, where it is SDPA and gives the same states as before; else
    leave it as it was. Whether it does."""
    config, decoder = network.config.get_text_config(), network.base_model
    if config._attn_implementation != "sdpa" or decoder is network:
        return False
    device, size = network.device, config.vocab_size
    sequences = [[(7 * place + 3) % size for place in range(n)] for n in (9, 6)]
    sequences[1][-3:] = [(token + 1) % size for token in sequences[1][-3:]]
    try:
        with evaluating(network):
            alone = [
                decoder(input_ids=torch.tensor([ids], device=device), use_cache=False).last_hidden_state[0]
                for ids in sequences
            ]
            network.set_attn_implementation(NAME)
            packed = pack_shared(sequences, device)
            found = packed_states(decoder, packed.packings[0])[0]
            agrees = all(map(_agree, alone, (found[list(places)] for places in packed.at)))
            # A window that lives in the mask alone is not known here, and what was tried is too short for it.
            agrees = agrees and (not _has_windows(config) or bool(packed.packings[0].windows - {None}))
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        agrees = False
        logging.getLogger("triggerctl.run").debug("rows go side by side: %s", error)
    if not agrees:
        network.set_attn_implementation("sdpa")
    return agrees


def _has_windows(config: PretrainedConfig) -> bool:
    kinds = set(getattr(config, "layer_types", None) or ())
    return getattr(config, "sliding_window", None) is not None or not kinds <= {"full_attention"}


def _agree(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    bound = TOLERANCE.get(one.dtype, COARSE)
    return bool((one - other).float().norm() <= bound * one.float().norm())
