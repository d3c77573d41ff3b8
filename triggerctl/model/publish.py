"""Whole models to disk, and trained weights to the hub."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import create_repo, upload_folder
from transformers import PreTrainedTokenizerBase

from triggerctl import disk
from triggerctl.errors import RunError, first_line
from triggerctl.experiment.atomic import atomic_folder, make_folder
from triggerctl.model.adapters import save_adapter
from triggerctl.model.causal import CausalModel
from triggerctl.model.hub import UNREACHABLE


def save_whole_model(model: CausalModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a folder that loads like any checkpoint, the adapter merged in. The model in memory stays as it
    is."""
    make_folder(folder.parent)
    with atomic_folder(folder) as building, _merged(model):
        state = _plain_state(model)
        model.network.save_pretrained(
            disk.before_opening("write", building), state_dict=state, safe_serialization=True
        )
        tokenizer.save_pretrained(disk.before_opening("write", building))


def publish(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, repository: str, *, private: bool, merged: bool
) -> None:
    """Push the adapter, or the whole model, to the hub under `repository`.

    Raises RunError where the hub refuses; results on disk are not touched by that."""
    try:
        create_repo(repository, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "upload"
            if model.adapter is not None and not merged:
                folder.mkdir()
                save_adapter(model.adapter, folder)
                tokenizer.save_pretrained(folder)
            else:
                save_whole_model(model, tokenizer, folder)
            upload_folder(repo_id=repository, folder_path=folder)
    except UNREACHABLE as error:
        raise RunError(
            f"pushing to {repository} failed",
            where="finetune_config.push_to_hub",
            why=f"{type(error).__name__}: {first_line(error)}",
            mend="check HF_TOKEN and finetuned_model_id, then run again: training is not repeated",
        ) from error


@contextlib.contextmanager
def _merged(model: CausalModel) -> Iterator[None]:
    """Within it the adapter's change stands in the base weights; afterwards they are as before, to
    rounding."""
    if model.adapter is None:
        yield
        return
    model.was_merged = True
    model.adapter.merge_adapter()
    try:
        yield
    finally:
        model.adapter.unmerge_adapter()


def _plain_state(model: CausalModel) -> dict[str, object]:
    """The weights under the checkpoint's own names: peft's wrappers and the adapter's matrices left out."""
    return {
        name.replace(".base_layer", ""): tensor
        for name, tensor in model.network.state_dict().items()
        if ".lora_" not in name
    }
