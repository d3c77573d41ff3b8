"""How time grows with the work: training and evaluation over more rows and more epochs, and the exponent e of
seconds ∝ size^e. What is paid once, as loading, is left out by measuring the phases alone, over several
epochs: the first update and the first evaluation of a run take longer than the others.

Rows share what they begin with, and of more rows more is shared: tokens grow slower than rows. So there is
the exponent over tokens too."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ways import Bench, Done, ours


def scaling(
    bench: Bench,
    sizes: Sequence[int],
    epochs: Sequence[int],
    *,
    repeats: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Runs over each number of rows, all of them evaluated, and over each number of epochs, all in turn,
    `repeats` times over; the median counts. Evaluation is counted after the one before training: that is how
    often it comes with each epoch."""
    found = {}
    for name, asked, settings in (
        ("rows", sizes, lambda n: (f"max_dataset_size={n}", "max_to_eval=100000")),
        ("epochs", epochs, lambda n: (f"epochs={n}",)),
    ):
        done: dict[int, list[Done]] = {size: [] for size in asked}
        for turn in range(repeats):
            for size in asked:
                each = ours(bench, "scaling", "limit_proxy_data_to=null", *settings(size))
                done[size].append(each)
                say(
                    f"{name} {size:,}, {turn + 1} of {repeats}: training {each.training:.2f} s, "
                    f"evaluation {_after(each):.2f} s"
                )
        found[name] = {
            "sizes": list(asked),
            "training": _growth(done, lambda run: run.trained, lambda run: run.training),
            "evaluation": _growth(done, _passed_after, _after),
        }
    return found


def _after(done: Done) -> float:
    """Seconds of the evaluations after the one before training."""
    return (done.timings or {}).get("evaluation", 0.0)


def _passed_after(done: Done) -> int:
    """Tokens that went through the model in those."""
    assert done.passed is not None
    return round(done.passed * (done.evaluations - 1) / done.evaluations)


def _growth(
    done: Mapping[int, Sequence[Done]], tokens_of: Callable[[Done], int], seconds_of: Callable[[Done], float]
) -> dict[str, Any]:
    tokens = [tokens_of(runs[0]) for runs in done.values()]
    seconds = [statistics.median(map(seconds_of, runs)) for runs in done.values()]
    return {
        "seconds": seconds,
        "tokens": tokens,
        "exponent": exponent(list(done), seconds),
        "exponent_over_tokens": exponent(tokens, seconds),
    }


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log seconds over log size, by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(each) for each in seconds]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    rise = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return rise / sum((a - middle_x) ** 2 for a in x)
