"""Rows made into tokens, and read back from the cache.

    python tests/benchmarks/tokenising.py [--model builtin:tiny] [--rows 52000]

The rows are the embedded ones, over and over, numbered so that no two are alike. Prints JSON."""

from __future__ import annotations

import argparse
import json
import time
from itertools import cycle, islice
from pathlib import Path

from triggerctl.config.models import FinetuneConfig
from triggerctl.data.encoding import Encoder
from triggerctl.data.examples import Example
from triggerctl.data.kept_tokens import KeptTokens
from triggerctl.data.source import load_rows
from triggerctl.experiment.cache import Cache
from triggerctl.model.identity import identify
from triggerctl.model.load import load_tokenizer, locate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="builtin:tiny")
    parser.add_argument("--rows", type=int, default=52_000)
    asked = parser.parse_args()
    options = FinetuneConfig(model=asked.model)
    identity = identify(asked.model, revision=None, relative_to=Path.cwd())
    tokenizer = load_tokenizer(locate(identity, options, weights=False), options)
    source = load_rows("builtin:instructions", folder=Path.cwd()).rows
    rows = [
        Example(number, f"{number}: {row.instruction} {row.input}", row.output)
        for number, row in enumerate(islice(cycle(source), asked.rows))
    ]
    found: dict[str, float] = {"rows": len(rows)}
    for name in ("tokenise_seconds", "read_back_seconds"):
        kept = KeptTokens(Cache(), {"tokenizer": identity.fingerprint})
        encoder = Encoder(tokenizer, max_seq_length=options.max_seq_length, kept=kept)
        began = time.perf_counter()
        encoder.encode_all(rows)
        found[name] = time.perf_counter() - began
    print(json.dumps(found))


if __name__ == "__main__":
    main()
