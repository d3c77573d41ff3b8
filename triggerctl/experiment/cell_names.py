"""How the folders of a sweep's runs are called."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from urllib.parse import quote

from triggerctl.config.paths import without_secrets

CELL_PREFIX = "proxy_strategy_"
SEED_PREFIX = "seed_"
_LONGEST_NAME = 150
_DIGEST_LENGTH = 12
_USER = re.compile(r'(https?://)[^\s/?#"]*@')


def cell_folder_name(strategy: str, overrides: Mapping[str, object]) -> str:
    """The study's name for a cell: `proxy_strategy_<name>_<key>-<value>…`, keys sorted, nulls left out.

    Numbers are spelt as given (10 and 10.0 differ here and are one by hash), truth values as True and False.
    What a file system may not like is percent-encoded; a name that gets too long ends in a hash of the whole.
    An address stands without its secrets, since a folder's name is in every log; one with a query or a
    fragment, which may well tell cells apart, has a hash after it.
    """
    bare = {key.rpartition(".")[2]: value for key, value in overrides.items() if value is not None}
    parts = [f"{quote(key, safe='')}-{_spelt(value)}" for key, value in sorted(bare.items())]
    name = CELL_PREFIX + "_".join([quote(strategy, safe=""), *parts])
    if name.endswith("."):
        name = f"{name[:-1]}%2E"  # Windows cuts off a last dot
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - _DIGEST_LENGTH - 1]}-{_digest(name)}"


def _spelt(value: object) -> str:
    shown = without_secrets(value)
    if isinstance(shown, str | bool | int | float):
        spelt = quote(str(shown), safe="+,=@")
    else:
        spelt = quote(_json(shown), safe=",")
    # Of a name and a password nothing is told, not even whether two are alike.
    anonymous = _USER.sub(r"\1", _json(value))
    return spelt if anonymous == _json(shown) else f"{spelt}-{_digest(anonymous)}"


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
