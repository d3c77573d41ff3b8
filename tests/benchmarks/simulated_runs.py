"""Runs whose truth is known: counts by seed and trigger word, drawn from normal effects on the log odds.

Seeds and words add an effect each to the log odds of a row's answer, and so does each pair of them. Seeds
have 60 to 120 rows over words of unequal shares, and with five words or more each seed lacks one, as
truth_minus_proxy lacks the seed's proxy word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]

NODES, MASSES = np.polynomial.hermite_e.hermegauss(61)
MASSES = MASSES / MASSES.sum()


class Noise(NamedTuple):
    """Standard deviations on the log odds: of seeds, words and pairs; `own_…`: of what a strategy does not
    share with its baseline."""

    seeds: float
    words: float
    pairs: float
    own_seeds: float = 0.0
    own_words: float = 0.0

    @property
    def of_seeds(self) -> float:
        return float(np.sqrt(self.seeds**2 + self.own_seeds**2 + self.pairs**2))

    @property
    def total(self) -> float:
        return float(np.sqrt(self.of_seeds**2 + self.words**2 + self.own_words**2))


@dataclass(frozen=True)
class Drawn:
    """k, n: (repeats, parts, seeds, words); these_words: (repeats, parts); all_words: (parts,)."""

    k: Floats
    n: Floats
    these_words: Floats
    all_words: Floats


def mean_rate(log_odds: Floats, deviation: float) -> Floats:
    """The mean of expit over a normal variable."""
    means: Floats = (expit(np.asarray(log_odds)[..., None] + deviation * NODES) * MASSES).sum(-1)
    return means


def draw(
    random: np.random.Generator,
    repeats: int,
    seeds: int,
    words: int,
    rates: Sequence[float],
    noise: Noise,
    *,
    same_words: bool = True,
) -> Drawn:
    """A part for each of `rates`; parts share seed effects and, with `same_words`, words and rows."""
    lacking = words >= 5
    parts = len(rates)
    sets = 1 if same_words else parts
    shares = random.dirichlet(np.full(words, 10.0), size=(repeats, sets))[:, :, None, :]
    held: Floats = np.ones((repeats, 1, seeds, words))
    if lacking:
        held = np.arange(words) != random.integers(0, words, (repeats, 1, seeds))[..., None]
    split = shares * held / (shares * held).sum(-1, keepdims=True)
    n = np.round(split * random.integers(60, 121, (repeats, sets, 1, 1)))
    n = np.where(held & (n < 1) if lacking else n < 1, 1.0, n)
    n = np.broadcast_to(n, (repeats, parts, seeds, words))
    middle = np.array([_middle(rate, noise.total) for rate in rates])[:, None, None]
    of_words = noise.words * random.standard_normal((repeats, sets, 1, words)) + (
        noise.own_words * random.standard_normal((repeats, parts, 1, words))
    )
    chances = expit(
        middle
        + of_words
        + noise.seeds * random.standard_normal((repeats, 1, seeds, 1))
        + noise.own_seeds * random.standard_normal((repeats, parts, seeds, 1))
        + noise.pairs * random.standard_normal((repeats, parts, seeds, words))
    )
    by_word = mean_rate((middle + of_words)[:, :, 0], noise.of_seeds)
    weights = shares[:, :, 0]
    if lacking:
        kept = weights[:, :, None, :] * ~np.eye(words, dtype=bool)
        weights = (kept / kept.sum(-1, keepdims=True)).mean(-2)
    return Drawn(
        random.binomial(n.astype(np.int64), chances).astype(np.float64),
        n,
        (weights * by_word).sum(-1),
        np.array(rates),
    )


def _middle(rate: float, deviation: float) -> float:
    if rate in (0.0, 1.0):
        return 40.0 if rate else -40.0
    low, high = -60.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_rate(np.array(middle), deviation) < rate else (low, middle)
    return low
