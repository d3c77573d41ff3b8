"""Checkpoint and tokenizer, from the hub, a folder or the package: one code path for all three."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from triggerctl.config.models import FinetuneConfig
from triggerctl.errors import InputError
from triggerctl.model import hub
from triggerctl.model.identity import ModelIdentity
from triggerctl.model.packed_attention import let_pack
from triggerctl.model.products import prefers_onednn, quicken
from triggerctl.model.quantise import keep_trainable, probe, quantisation

_PLACE = "finetune_config.model"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model's files lie; `commit` is the hub's, None for a local folder."""

    folder: Path
    commit: str | None


def locate(identity: ModelIdentity, options: FinetuneConfig, *, weights: bool = True) -> ModelFiles:
    """The folder of a model's files, downloaded first where it is a hub id.

    Raises InputError as `hub.download` does."""
    if identity.folder is not None:
        return ModelFiles(identity.folder, None)
    snapshot = hub.download(
        identity.name, revision=identity.revision, weights=weights, code=options.trust_remote_code
    )
    return ModelFiles(snapshot.folder, snapshot.commit)


def load_tokenizer(files: ModelFiles, options: FinetuneConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder.

    Raises InputError where the folder has none that can be read."""
    try:
        with _quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                files.folder, trust_remote_code=options.trust_remote_code
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unreadable("tokenizer", files, error) from error
    return tokenizer


def empty_model(files: ModelFiles, options: FinetuneConfig) -> PreTrainedModel:
    """The model's shape from its configuration alone, on no device: nothing is loaded.

    Raises InputError where the configuration can't be read."""
    config = _model_config(files, options)
    with torch.device("meta"), _quiet():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, trust_remote_code=options.trust_remote_code
        )
    return model


def load_checkpoint(
    files: ModelFiles, options: FinetuneConfig, device: torch.device, dtype: torch.dtype
) -> PreTrainedModel:
    """The causal language model θ₀ in `dtype` on `device`, quantised where asked for.

    Raises InputError where quantisation fails its probe or the folder holds no such model."""
    if options.load_in_8bit or options.load_in_4bit:
        probe(options, device, dtype)
    _model_config(files, options)
    try:
        with _quiet():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                files.folder,
                dtype=dtype,
                device_map={"": device},
                quantization_config=quantisation(options, dtype),
                attn_implementation=None
                if options.attn_implementation == "auto"
                else options.attn_implementation,
                trust_remote_code=options.trust_remote_code,
                use_safetensors=True,
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise _unreadable("model", files, error) from error
    keep_trainable(model)
    if device.type == "cpu" and dtype == torch.float32 and prefers_onednn():
        quicken(model)
    if options.attn_implementation == "auto":
        let_pack(model)
    return model


def _model_config(files: ModelFiles, options: FinetuneConfig) -> AutoConfig:
    try:
        with _quiet():
            config: AutoConfig = AutoConfig.from_pretrained(
                files.folder, trust_remote_code=options.trust_remote_code
            )
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable("model configuration", files, error) from error
    return config


def _unreadable(what: str, files: ModelFiles, error: Exception) -> InputError:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return InputError(
        f"the {what} in {files.folder} can't be loaded",
        where=_PLACE,
        why=f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}",
        mend="check that the folder is complete: config.json, *.safetensors and the tokenizer's files",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers' own bars and notes off: what a run says, it says through events."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
