"""The machine's matmul floor: operations a second in products of a model's own shapes.

    python tests/benchmarks/floor.py --model builtin:tiny [--device auto] [--threads N]

Prints JSON: the rate of each shape, the best of many products."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from triggerctl.config.models import FinetuneConfig
from triggerctl.model.device import default_threads, matmul_rate, resolve_device, resolve_dtype
from triggerctl.model.identity import identify
from triggerctl.model.load import empty_model, locate
from triggerctl.model.operations import widths

SECONDS = 0.5
ROWS = {"cpu": 1024, "cuda": 8192, "mps": 2048}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="builtin:tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads or default_threads())
    device = resolve_device(asked.device)
    options = FinetuneConfig(model=asked.model)
    files = locate(identify(asked.model, revision=None, relative_to=Path.cwd()), options, weights=False)
    network = empty_model(files, options)
    hidden, intermediate = widths(network)
    vocabulary = network.config.get_text_config().vocab_size
    shapes = {
        "attention": (hidden, hidden),
        "feed forward": (hidden, intermediate),
        "back again": (intermediate, hidden),
        "head": (hidden, min(vocabulary, 8 * hidden)),
    }
    rates = {
        name: matmul_rate(
            device,
            resolve_dtype(options, device),
            rows=ROWS[device.type],
            inner=inner,
            columns=columns,
            seconds=SECONDS,
        )
        for name, (inner, columns) in shapes.items()
    }
    print(json.dumps({"threads": torch.get_num_threads(), "device": device.type, "rates": rates}))


if __name__ == "__main__":
    main()
