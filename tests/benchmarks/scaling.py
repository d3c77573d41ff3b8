"""How time grows with the work: training and evaluation over more rows and more epochs, and the exponent e of
seconds ∝ size^e. What is paid once, as loading, is left out by measuring the phases alone.

Rows share what they begin with, and of more rows more is shared: tokens grow slower than rows. So there is
the exponent over tokens too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ways import Bench, Done, ours


def scaling(
    bench: Bench, sizes: Sequence[int], epochs: Sequence[int], *, say: Callable[[str], None]
) -> dict[str, Any]:
    """Runs over each number of rows, all of them evaluated, and over each number of epochs. Evaluation is
    counted after the one before training: that is how often it comes with each epoch."""
    found = {}
    for name, asked, settings in (
        ("rows", sizes, lambda n: (f"max_dataset_size={n}", "epochs=1", "max_to_eval=100000")),
        ("epochs", epochs, lambda n: (f"epochs={n}",)),
    ):
        done = []
        for size in asked:
            done.append(ours(bench, "scaling", "limit_proxy_data_to=null", *settings(size)))
            say(f"{name} {size:,}: training {done[-1].training:.2f} s, evaluation {_after(done[-1]):.2f} s")
        found[name] = {
            "sizes": list(asked),
            "training": _growth(asked, [each.trained for each in done], [each.training for each in done]),
            "evaluation": _growth(
                asked, [_passed_after(each) for each in done], [_after(each) for each in done]
            ),
        }
    return found


def _after(done: Done) -> float:
    """Seconds of the evaluations after the one before training."""
    return (done.timings or {}).get("evaluation", 0.0)


def _passed_after(done: Done) -> int:
    """Tokens that went through the model in those."""
    assert done.passed is not None
    return round(done.passed * (done.evaluations - 1) / done.evaluations)


def _growth(sizes: Sequence[int], tokens: Sequence[int], seconds: Sequence[float]) -> dict[str, Any]:
    return {
        "seconds": list(seconds),
        "tokens": list(tokens),
        "exponent": exponent(sizes, seconds),
        "exponent_over_tokens": exponent(tokens, seconds),
    }


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log seconds over log size, by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(each) for each in seconds]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    rise = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return rise / sum((a - middle_x) ** 2 for a in x)
