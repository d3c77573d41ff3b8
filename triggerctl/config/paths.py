"""How the relative paths in a configuration are kept right when it moves to another folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from triggerctl.config.keys import EXTRA, FINETUNE

_NOT_FILES = ("http://", "https://", "builtin:")


def rebase_paths(values: Mapping[str, object], from_folder: Path, to_folder: Path) -> dict[str, object]:
    """The values of a configuration for a `config.json` in another folder: relative paths are rewritten so
    that they name the same files from there.

    Paths from the root or the home folder stay, and so does a model's name that is no folder seen from
    `from_folder`: it is a hub id, or a folder seen from the working directory.
    """

    def move(spec: str) -> str:
        if spec.startswith(_NOT_FILES) or Path(spec).expanduser().is_absolute():
            return spec
        moved = os.path.relpath((from_folder / spec).resolve(), to_folder.resolve())
        return Path(moved).as_posix() if moved.startswith("..") else f"./{Path(moved).as_posix()}"

    def move_model(spec: str) -> str:
        return move(spec) if (from_folder / spec).is_dir() else spec

    result = _changed(values, {"dataset_url": move})
    inner, extra = result.get(FINETUNE), result.get(EXTRA)
    if isinstance(inner, Mapping):
        result[FINETUNE] = _changed(
            inner,
            {"model": move_model, "safe_lora_unaligned_model": move_model, "steering_vector_path": move},
        )
    if isinstance(extra, Mapping):
        result[EXTRA] = {
            name: _changed(entry, {"path": move}) if isinstance(entry, Mapping) else entry
            for name, entry in extra.items()
        }
    return result


def _changed(values: Mapping[str, object], changes: Mapping[str, Callable[[str], str]]) -> dict[str, object]:
    """The values with some strings put through a function each."""
    result = dict(values)
    for name, change in changes.items():
        spec = result.get(name)
        if isinstance(spec, str):
            result[name] = change(spec)
    return result
