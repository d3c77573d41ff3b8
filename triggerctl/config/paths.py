"""What the paths in a configuration mean, and how they are kept right when it moves to another folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from triggerctl.config.keys import EXTRA, FINETUNE

_MODELS = ("model", "safe_lora_unaligned_model")


def dataset_path(spec: str, folder: Path) -> Path | None:
    """The file that a data source names, relative to the configuration's folder; None for a URL, `builtin:`."""
    if spec.lower().startswith(("http://", "https://", "builtin:")):
        return None
    return folder / Path(spec).expanduser()


def model_path(spec: str, folder: Path) -> Path | None:
    """The folder that a model names, relative to the configuration's; None for `builtin:` and a hub id.

    `owner/name` is a path where such a folder is there, else a hub id; a path written as one (`./`, `../`,
    `~`, from the root) is always a path.
    """
    if spec.startswith("builtin:"):
        return None
    path = folder / Path(spec).expanduser()
    written_as_path = spec.startswith((".", "~")) or Path(spec).is_absolute()
    return path if written_as_path or path.is_dir() else None


def rebase_paths(values: Mapping[str, object], from_folder: Path, to_folder: Path) -> dict[str, object]:
    """The given values of a configuration, for a `config.json` in another folder: relative paths are rewritten
    so that they name the same files from there. Paths from the root or the home folder stay."""

    def moved(spec: object, path: Path | None) -> object:
        if path is None or not isinstance(spec, str) or Path(spec).expanduser().is_absolute():
            return spec
        relative = Path(os.path.relpath(path.resolve(), to_folder.resolve())).as_posix()
        return relative if relative.startswith("..") else f"./{relative}"

    def each(held: object, names: tuple[str, ...]) -> dict[str, object]:
        inner = dict(held) if isinstance(held, Mapping) else {}
        for name in names:
            spec = inner.get(name)
            if isinstance(spec, str):
                find = model_path if name in _MODELS else dataset_path
                inner[name] = moved(spec, find(spec, from_folder))
        return inner

    result = each(values, ("dataset_url",))
    if FINETUNE in result:
        result[FINETUNE] = each(result[FINETUNE], (*_MODELS, "steering_vector_path"))
    extra = result.get(EXTRA)
    if isinstance(extra, Mapping):
        result[EXTRA] = {name: each(entry, ("path",)) for name, entry in extra.items()}
    return result
