"""What a configuration's paths and addresses mean elsewhere: relative paths are kept right when it moves to
another folder, those that are written to stay in their experiment, and of an address only what is no secret
is shown."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from triggerctl.config.keys import EXTRA, FINETUNE
from triggerctl.errors import InputError

_WEB = ("http://", "https://")
_NOT_FILES = (*_WEB, "builtin:")
_ADDRESSES = re.compile(r'(?<=")https?://[^"]+|https?://(?:[^\s/?#"]*@)?[^\s,"]*')
"""Those in a text. One in quotation marks ends with them; another at a comma, but for one in its name or
password."""
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


def shown_url(spec: str) -> str:
    """A web address without what may be secret: name and password, query, fragment. Anything else as it
    is."""
    if not spec.startswith(_WEB):
        return spec
    scheme, _, rest = spec.partition("://")
    before_fragment = rest.partition("#")[0]
    place, question, _ = before_fragment.partition("?")
    host, slash, path = place.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}" + ("?…" if question else "")


def without_secrets(value: object) -> object:
    """Plain data, each address in its texts as `shown_url` shows it."""
    if isinstance(value, str):
        if value.startswith(_WEB) and value.count("://") == 1:
            return shown_url(value)  # whatever stands in it
        return _ADDRESSES.sub(lambda found: shown_url(found[0]), value)
    if isinstance(value, Mapping):
        return {key: without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(inner) for inner in value]
    return value


def shown_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's plain values as they may be written into results and sent to trackers."""
    extra = values.get(EXTRA)
    shown = _changed(values, {"dataset_url": shown_url})
    if isinstance(extra, Mapping):
        shown[EXTRA] = {name: _changed(entry, {"path": shown_url}) for name, entry in extra.items()}
    return shown


def written_path(spec: str, *, folder: Path, experiment: Path, key: str) -> Path:
    """Where a path of a configuration, given as `key`, leads that a run would write to. A relative one starts
    at `folder`, that of the configuration.

    Raises InputError where it leads out of the experiment's folder, through links too, or has a part that is
    no file's name on every system."""
    path = folder / Path(spec).expanduser()
    if not path.resolve().is_relative_to(experiment.resolve()):
        raise InputError(
            f"{spec} leads out of the experiment",
            where=key,
            why=f"a run writes nothing outside of {experiment}, whatever its configuration says",
            mend="give a path below that folder; what is written there can be moved afterwards",
        )
    for part in Path(spec).parts:
        if _DEVICES.fullmatch(part) or (part.strip(".") and part.endswith((".", " "))) or ":" in part:
            raise InputError(
                f"{part!r} is no file's name on every system",
                where=key,
                why="Windows keeps such names for devices, or cuts off their end",
                mend="choose another name",
            )
    return path


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
