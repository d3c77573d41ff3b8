"""Which model a configuration names, without loading it: builtin, a local folder, or a hub id. Imports no
torch."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import re
from dataclasses import dataclass
from pathlib import Path

from triggerctl import disk
from triggerctl.errors import InputError
from triggerctl.experiment.atomic import make_folder, write_text_atomic
from triggerctl.experiment.cache import cache_root

BUILTIN = "builtin:"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_IDENTITY_FILES = ("*.json", "*.safetensors", "*.bin", "*.model", "*.jinja", "*.txt", "*.py")


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What a run's hash knows of its model. `kind`: "builtin", "folder" or "hub"; `folder` is None for a hub
    id, `revision` the one asked for there. `fingerprint` covers every file of a folder by content, or a hub
    id with its revision."""

    kind: str
    name: str
    folder: Path | None
    fingerprint: str
    revision: str | None = None


def identify(
    name: str, *, revision: str | None, relative_to: Path, key: str = "finetune_config.model"
) -> ModelIdentity:
    """Say which model `name`, given as `key`, means. A local path is taken from `relative_to`, else from the
    working directory.

    Raises InputError where a builtin or a folder isn't there, or the name can't be a hub id."""
    if name.startswith(BUILTIN):
        folder = _builtin_folder(name, key)
        return ModelIdentity("builtin", name, folder, f"files:{_digest(folder)}")
    folder_found = _local_folder(name, relative_to, key)
    if folder_found is not None:
        return ModelIdentity("folder", name, folder_found, f"files:{_cached_digest(folder_found)}")
    if not _HUB_ID.fullmatch(name) or ".." in name:
        raise InputError(
            f"there is no model folder {name!r}",
            where=key,
            why=f"looked in {relative_to} and in {Path.cwd()}; and it can't be a hub id (owner/name)",
            mend="give a folder with config.json and *.safetensors, a hub id, or builtin:tiny",
        )
    return ModelIdentity("hub", name, None, f"hub:{name}@{revision or 'default'}", revision)


def _builtin_folder(name: str, key: str) -> Path:
    models = Path(str(importlib.resources.files("triggerctl"))) / "assets" / "models"
    folder = models / name.removeprefix(BUILTIN)
    if not (folder / "config.json").is_file() or folder.parent != models:
        known = sorted(BUILTIN + path.parent.name for path in models.glob("*/config.json"))
        raise InputError(
            f"there is no embedded model {name!r}",
            where=key,
            why="known: " + ", ".join(known),
            mend="choose one of these",
        )
    return folder


def _local_folder(name: str, relative_to: Path, key: str) -> Path | None:
    given = Path(name).expanduser()
    for candidate in (relative_to / given, Path.cwd() / given):
        if candidate.is_dir():
            if not (candidate / "config.json").is_file():
                raise InputError(
                    f"{candidate} is not a model folder",
                    where=key,
                    why="it has no config.json",
                    mend="point to the folder that holds config.json, the tokenizer and *.safetensors",
                )
            return candidate.resolve()
    return None


def _identity_files(folder: Path) -> list[Path]:
    return sorted({path for pattern in _IDENTITY_FILES for path in folder.glob(pattern) if path.is_file()})


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in _identity_files(folder):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.name}:{content}\n".encode())
    return total.hexdigest()


def _cached_digest(folder: Path) -> str:
    """The digest, kept by the files' names, sizes and times: reading gigabytes again for each run would cost
    seconds."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in _identity_files(folder)]
    key = hashlib.sha256(json.dumps([str(folder), stats]).encode()).hexdigest()
    kept = cache_root() / "model-digests" / f"{key}.txt"
    if kept.is_file():
        return disk.read_text(kept).strip()
    digest = _digest(folder)
    try:
        make_folder(kept.parent)
        write_text_atomic(kept, digest)
    except (OSError, InputError):
        return digest  # a cache that can't be written costs time, not truth
    return digest
