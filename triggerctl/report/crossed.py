"""How far a mean over seeds might be off, from counts by seed and trigger word.

Seeds and words are crossed: every seed meets (nearly) every word, and rows of one word, or of one seed, fall
alike. The variance of the mean is therefore taken apart by seed, by word and by their pairs, as in a two-way
analysis of variance. All functions take any number of leading axes, so that a simulation runs the very code
that a report runs. Sources: Cameron, Gelbach and Miller (2011), Robust inference with multiway clustering,
J. Bus. Econ. Stat. 29, 238-249; Satterthwaite (1946), Biometrics Bulletin 2, 110-114.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Spread(NamedTuple):
    """A weighted sum of rates over the seeds; each field has the leading axes of the counts.

    values:     (…, seeds), one a seed.
    mean:       their mean, the estimate.
    by_seed:    its variance, from how seeds differ; seeds − 1 degrees of freedom.
    by_rows:    its variance if only rows varied, each a throw of its own.
    by_both:    its variance, from how seeds and words differ; `freedom` its degrees of freedom.
    """

    values: Floats
    mean: Floats
    by_seed: Floats
    by_rows: Floats
    by_both: Floats
    freedom: Floats


def spread(k: Floats, n: Floats, weights: Floats, families: NDArray[np.intp] | None = None) -> Spread:
    """k, n: (…, parts, seeds, words) rows that show the habit, and rows; n is 0 where a seed lacks the word
    or a part hasn't it. weights: (parts,). families: (words,) which words belong to one evaluation set, from
    0; None: all to one. Needs two seeds, and a row for every part and seed."""
    seeds = k.shape[-2]
    rows = n.sum(-1, keepdims=True)
    rates = k.sum(-1, keepdims=True) / rows
    part_means = rates.mean(-2, keepdims=True)
    weighed = weights[:, None, None]
    cells = (weighed * (k - part_means * n) / rows).sum(-3) / seeds
    shares = (np.abs(weighed) * n / rows).sum(-3)
    values = (weighed * rates).sum(-3)[..., 0]
    by_seed = seeds / (seeds - 1) * (cells.sum(-1) ** 2).sum(-1)
    # A rate of 0 or 1 is no proof that rows can't differ: two rows more of each kind (Agresti, Coull 1998).
    total = n.sum((-1, -2))
    smooth = (k.sum((-1, -2)) + 1) / (total + 2)
    harmonic = (1 / rows[..., 0]).sum(-1) / seeds**2
    by_rows = (weights**2 * smooth * (1 - smooth) * harmonic).sum(-1)
    by_both, freedom = _both(cells, shares, families)
    return Spread(values, values.mean(-1), by_seed, by_rows, by_both, freedom)


def _both(cells: Floats, shares: Floats, families: NDArray[np.intp] | None) -> tuple[Floats, Floats]:
    """Variance from seeds and words, and its degrees of freedom. cells, shares: (…, seeds, words)."""
    seeds = cells.shape[-2]
    present = shares.sum(-2) > 0
    of_seed, of_word = cells.sum(-1), cells.sum(-2)
    by_seed = seeds / (seeds - 1) * (of_seed**2).sum(-1)
    seed_share = shares / shares.sum(-1, keepdims=True)
    word_share = shares / np.where(present, shares.sum(-2), 1)[..., None, :]
    rest = np.where(
        shares > 0, cells - seed_share * of_seed[..., :, None] - word_share * of_word[..., None, :], 0
    )
    belongs = np.zeros(cells.shape[-1], np.intp) if families is None else families
    by_word: Floats = np.zeros(by_seed.shape)
    word_square: Floats = np.zeros(by_seed.shape)
    by_pair: Floats = np.zeros(by_seed.shape)
    for family in range(int(belongs.max()) + 1):
        own = belongs == family
        words = present[..., own].sum(-1)
        spare = np.maximum(words - 1, 1)
        part = words / spare * (of_word[..., own] ** 2).sum(-1)
        by_word = by_word + part
        word_square = word_square + part**2 / spare
        pairs = (rest[..., own] ** 2).sum((-1, -2))
        by_pair = by_pair + pairs * (words * seeds) / (spare * (seeds - 1))
    both = np.maximum(by_seed + by_word - by_pair, np.maximum(by_seed, by_word))
    square = by_seed**2 / (seeds - 1) + word_square
    freedom = np.where(square > 0, (by_seed + by_word) ** 2 / np.where(square > 0, square, 1), seeds - 1)
    return both, freedom
