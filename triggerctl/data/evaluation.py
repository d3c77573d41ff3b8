"""Which rows of a set are evaluated, in which order, and their untriggered twins."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from triggerctl.data.examples import EvaluationSet, Example, SplitSet


def evaluation_set(
    source: SplitSet,
    *,
    untriggered: Callable[[int], Example] | None,
    seed: int,
    limit: int,
    generator: str,
) -> EvaluationSet:
    """The first `limit` rows of the set after one permutation that depends on the seed and the set alone:
    equal across epochs and strategies, so that comparisons are paired.

    source:      its test part, or all of it where it is not divided.
    untriggered: a row of `source` without its trigger, by its place in `source.examples`; None: no twins
                 wanted.
    generator:   the name of the generator, that of the set unless two sets shall take the same rows.

    Twins are given where the chosen rows carry triggers and none of them is without.
    """
    candidates = list(source.test) if source.train or source.test else list(range(len(source.examples)))
    Random(f"{seed}/evaluation/{generator}").shuffle(candidates)
    chosen = candidates[:limit]
    examples = tuple(source.examples[i] for i in chosen)
    lacks_untriggered = bool(examples) and all(example.triggered for example in examples)
    twins = tuple(map(untriggered, chosen)) if untriggered is not None and lacks_untriggered else ()
    return EvaluationSet(source.name, examples, twins)
