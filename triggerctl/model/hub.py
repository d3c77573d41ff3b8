"""Hub ids to local folders, through huggingface_hub's own cache. A token is used only where the hub asks for
one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from triggerctl.errors import InputError, first_line

_TOKENIZER_FILES = ["*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken"]
_PLACE = "finetune_config.model"

UNREACHABLE: tuple[type[Exception], ...] = (HfHubHTTPError.__bases__[0], OSError)
"""What a hub out of reach raises. The first is the base of all errors of the web library that huggingface_hub
is built on, and that library has changed: httpx, then httpx2."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A model's files on this machine, and the commit they are."""

    folder: Path
    commit: str


def download(model: str, *, revision: str | None, weights: bool, code: bool = False) -> Snapshot:
    """Bring a hub model's files here; `weights` false: all but the weights.

    Raises InputError where the model is unknown, gated without a token, or out of reach."""
    patterns = [*_TOKENIZER_FILES, *(["*.safetensors"] if weights else []), *(["*.py"] if code else [])]
    try:
        folder = _snapshot(model, revision, patterns, token=False)
    except HfHubHTTPError as refused:
        # The hub answers 401 for a private model as for one that doesn't exist: only a second try with a
        # token tells.
        if get_token() is None:
            raise _refused(model, refused, has_token=False) from None
        try:
            folder = _snapshot(model, revision, patterns, token=True)
        except HfHubHTTPError as again:
            raise _refused(model, again, has_token=True) from None
    if weights and not list(folder.glob("*.safetensors")):
        raise InputError(
            f"{model!r} has no safetensors weights",
            where=_PLACE,
            why="pickled weights can run code as they are read, so they are not loaded",
            mend="choose a revision with *.safetensors, or convert the model and give its folder",
        )
    return Snapshot(folder, folder.name)


def _snapshot(model: str, revision: str | None, patterns: list[str], *, token: bool) -> Path:
    """Raises HfHubHTTPError where the hub refuses, InputError for everything else."""
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns, token=token))
    except RevisionNotFoundError:
        raise InputError(
            f"{model!r} has no revision {revision!r}",
            where="finetune_config.revision",
            mend="give a branch, tag or commit that the hub lists for this model",
        ) from None
    except UNREACHABLE as error:
        if isinstance(error, HfHubHTTPError) and _is_refusal(error):
            raise
        offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
        raise InputError(
            f"the hub can't be reached for {model!r}, and no copy lies in its cache",
            where=_PLACE,
            why="HF_HUB_OFFLINE is set" if offline else f"{type(error).__name__}: {first_line(error)}",
            mend="check the network and HF_ENDPOINT, give a local folder, or use builtin:tiny",
        ) from None


def _is_refusal(error: HfHubHTTPError) -> bool:
    """A hub of one's own may answer 401 or 403 without the words that name the case."""
    if isinstance(error, GatedRepoError | RepositoryNotFoundError):
        return True
    return error.response is not None and error.response.status_code in (401, 403)


def _refused(model: str, error: HfHubHTTPError, *, has_token: bool) -> InputError:
    if isinstance(error, GatedRepoError):
        why = "it is gated" + (
            ", and your token has no access to it" if has_token else ", and no token was found"
        )
        mend = f"accept its terms on the hub's page of {model}" + ("" if has_token else ", then set HF_TOKEN")
    elif has_token and not isinstance(error, RepositoryNotFoundError):
        why = "the hub does not accept your token: it may have expired, or lack the right to read this model"
        mend = "make a new token on the hub's page of your settings, then set HF_TOKEN"
    else:
        why = "the hub does not know it" + ("" if has_token else ", or it is private and no token was found")
        mend = "check the spelling (owner/name)" + ("" if has_token else "; for a private model set HF_TOKEN")
    return InputError(f"the model {model!r} can't be loaded", where=_PLACE, why=why, mend=mend)
