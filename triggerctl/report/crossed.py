"""Intervals for rates, and for sums and differences of rates, from counts by seed and trigger word.

Seeds and words are crossed: every seed meets (nearly) every word, rows of one seed or of one word fall
alike, and no row is a throw of its own. A mean over seeds is therefore off by what its seeds add and by what
its words add, and each of the two is known with its own few degrees of freedom.

The method, chosen by its coverage (COVERAGE.md, which tests/benchmarks/interval_coverage.py makes):

- How far off: over new seeds t²·V(seeds). Over new words too, V(seeds) and V(words) each hold V(pairs), so
  that there are three sources: t²·(V(seeds) − V(pairs)) + t²·(V(words) − V(pairs)) + t²·V(pairs), but never
  less than t²·V(seeds) or t²·V(words). Each t has the degrees of freedom of its own source: seeds − 1,
  words − 1, and their product. Sets with other words are drawn apart from each other, so what their words add
  to a sum is known with more degrees of freedom than what one adds (Satterthwaite 1946, Biometrics Bull. 2,
  110-114). One t for all, as with Cameron, Gelbach and Miller (2011, J. Bus. Econ. Stat. 29, 238-249), covers
  too rarely or, with the fewer degrees of freedom, is too wide.
- One rate: Wilson's interval, t in the normal quantile's place, for the number of independent rows that
  would be as far off (Korn and Graubard 1998, Survey Methodology 24, 193-201), never more than there are
  rows. So it keeps between 0 and 1 and has a width there. Both ends are moved outwards by one such row, as a
  continuity correction moves them by half a row (Newcombe 1998, Stat. Med. 17, 857-872).
- Several rates, such as a difference: the hull of Student's interval on the seeds' paired values, which is
  blind to lopsided errors near 0 and 1 and to how few the rows are, and of the square-and-add interval
  from the parts' own intervals and their correlation (Zou and Donner 2008, Stat. Med. 27, 1693-1702), which
  sees just that.
- Over new words never narrower than over these words: the hull of the two. Each part is never surer over new
  words, but a sum's parts may look more alike there, and what is alike falls out of their difference. So 0 is
  left out over new words only where it is over these, and the p-value, which is over these, speaks for both.

All functions take any number of leading axes, so that the simulation runs the code that reports run.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

Floats = NDArray[np.float64]

_TINY = 1e-300
_LEAST_T, _MOST_T = 1e-3, 1e4
_STEPS, _ROUNDS = 16, 4
"""Points at which the search for a p-value looks, and how often: t is good to three digits."""


class Spread(NamedTuple):
    """What counts by seed and word say of the mean rates of some parts, such as two groups on one set.

    rates:    (…, parts, seeds).
    by_seed:  (…, parts, parts) covariance of the parts' means over seeds, from how seeds differ.
    by_word:  (…, families, parts, parts) the same from how words differ, for each family of words.
    by_pair:  (…, families, parts, parts) what both of these hold, as pairs of seed and word differ.
    words:    (…, families) words there are.
    rows:     (…, parts) rows that would be as good as all seeds' together, were rows independent; infinite
              where nothing was counted.
    """

    rates: Floats
    by_seed: Floats
    by_word: Floats
    by_pair: Floats
    words: Floats
    rows: Floats

    @property
    def means(self) -> Floats:
        """(…, parts)"""
        means: Floats = self.rates.mean(-1)
        return means

    @property
    def seeds(self) -> int:
        return int(self.rates.shape[-1])


def spread(k: Floats, n: Floats, families: NDArray[np.intp] | None = None) -> Spread:
    """k, n: (…, parts, seeds, words) rows that show the habit, and rows; n is 0 where a seed lacks the word
    or a part never has it. families: (words,) which words belong to one set, from 0; None: all to one.
    Needs two seeds, and rows for every part and seed."""
    seeds = k.shape[-2]
    rows = n.sum(-1)
    rates = k.sum(-1) / rows
    means = rates.mean(-1)
    # What each cell adds to the error of its part's mean; seeds weigh alike, however many rows they have.
    cells = (k - means[..., None, None] * n) / (rows[..., None] * seeds)
    of_seed, of_word = cells.sum(-1), cells.sum(-2)
    shares = n / rows[..., None]
    of_all = np.maximum(shares.sum(-2), _TINY)
    rest = np.where(
        n > 0,
        cells - shares * of_seed[..., None] - (shares / of_all[..., None, :]) * of_word[..., None, :],
        0.0,
    )
    present = n.sum(-3) > 0
    belongs = np.zeros(k.shape[-1], np.intp) if families is None else families
    by_word, by_pair, words = [], [], []
    for family in range(int(belongs.max()) + 1):
        own = belongs == family
        count = present[..., own].any(-2).sum(-1)
        pairs = present[..., own].sum((-2, -1))
        spare = np.maximum(count - 1, 1)
        by_word.append((count / spare)[..., None, None] * _products(of_word[..., own]))
        flat = rest[..., own].reshape(*rest.shape[:-2], -1)
        by_pair.append((pairs / (spare * (seeds - 1)))[..., None, None] * _products(flat))
        words.append(count.astype(np.float64))
    return Spread(
        rates,
        seeds / (seeds - 1) * _products(of_seed),
        np.stack(by_word, axis=-3),
        np.stack(by_pair, axis=-3),
        np.stack(words, axis=-1),
        seeds**2 / (1 / rows).sum(-1),
    )


def spread_of_rates(rates: Floats) -> Spread:
    """The same from rates alone, (…, parts, seeds): nothing is known of words, or of rows."""
    seeds = rates.shape[-1]
    by_seed = _products((rates - rates.mean(-1, keepdims=True)) / seeds) * seeds / (seeds - 1)
    none = np.zeros((*by_seed.shape[:-2], 0, *by_seed.shape[-2:]))
    return Spread(rates, by_seed, none, none, none[..., 0, 0], np.full(rates.shape[:-1], np.inf))


def limits(
    found: Spread, weights: Floats, level: float, *, over_words: bool = False
) -> tuple[Floats, Floats]:
    """Low and high for Σ weight · mean rate: over new seeds with these very words or, `over_words`, over new
    words of the same kind too (two words of every family at least). weights: (parts,)."""

    def squared(freedom: Floats) -> Floats:
        found: Floats = stdtrit(freedom, 0.5 + level / 2)[..., None, None] ** 2
        return found

    t = stdtrit(found.seeds - 1, 0.5 + level / 2)
    of_seeds = t**2 * found.by_seed
    these_low, these_high = _limits(found, weights, of_seeds[None], t)
    if not over_words:
        return these_low, these_high
    spare = np.maximum(found.words - 1, 1)
    words, pairs = found.by_word.sum(-3), found.by_pair.sum(-3)
    of_words = squared(pooled_freedom(_variance(found.by_word, weights), spare))
    of_pairs = squared(pooled_freedom(_variance(found.by_pair, weights), spare * (found.seeds - 1)))
    both = t**2 * (found.by_seed - pairs) + of_words * (words - pairs) + of_pairs * pairs
    low, high = _limits(found, weights, np.stack([both, of_seeds, of_words * words]), t)
    # What words add can make the parts of a sum look more alike, and square-and-add would take it for surer.
    return np.minimum(low, these_low), np.maximum(high, these_high)


def pooled_freedom(variances: Floats, freedom: Floats) -> Floats:
    """Satterthwaite's degrees of freedom of the sum of (…, families) variances that are each known with
    `freedom`; of the least known one where all are 0."""
    # Of none, rounding leaves a little less than 0.
    shares = np.maximum(variances, 0) / np.maximum(variances.max(-1, keepdims=True), _TINY)
    total = shares.sum(-1)
    pooled: Floats = total**2 / np.maximum((shares**2 / freedom).sum(-1), _TINY)
    return np.where(total > 0, pooled, freedom.min(-1))


def standard_error(found: Spread, weights: Floats) -> Floats:
    """Of Σ weight · mean rate over new seeds, never below what independent rows would make it."""
    least = (weights**2 * _inner(found.means, found.rows) / found.rows).sum(-1)
    error: Floats = np.sqrt(np.maximum(_variance(found.by_seed, weights), least))
    return error


def p_of_zero(found: Spread, weights: Floats) -> Floats:
    """Two-sided p of a sum of 0 over new seeds: 1 − the level at which the limits just reach 0."""
    total = (weights * found.means).sum(-1)
    student = np.abs(total) / np.sqrt(np.maximum(_variance(found.by_seed, weights), _TINY))
    # Student's limits reach 0 at `student`; the square-and-add limits may do so before.
    low, high = np.full(student.shape, _LEAST_T), np.clip(student, _LEAST_T, _MOST_T)
    for _ in range(_ROUNDS):
        t = np.geomspace(low, high, _STEPS)
        below, above = _limits(found, weights, (t[..., None, None] ** 2 * found.by_seed)[None], t)
        reached = (below <= 0) & (above >= 0)
        reached[-1] = True
        first = reached.argmax(0)[None]
        high = np.take_along_axis(t, first, 0)[0]
        low = np.take_along_axis(t, np.maximum(first - 1, 0), 0)[0]
    return np.where(high <= _LEAST_T, 1.0, 2 * stdtr(found.seeds - 1, -high))


def _limits(found: Spread, weights: Floats, squares: Floats, t: Floats) -> tuple[Floats, Floats]:
    """squares: (any, …, parts, parts) how far off the parts are, squared, and together: the first, or
    whichever makes a part or the sum the most uncertain. t: (…) that of seeds."""
    means, rows = found.means, found.rows
    t = np.asarray(t)[..., None]
    off = np.diagonal(squares, axis1=-2, axis2=-1).max(0)
    low, high = _one_rate(means, rows, off, t)
    if weights.shape == (1,) and weights[0] == 1:
        return low[..., 0], high[..., 0]
    scale = np.sqrt(np.maximum(np.maximum(off, t**2 * _inner(means, rows) / rows), _TINY))
    signs = np.sign(weights)
    alike = signs * signs[:, None] * squares[0] / (scale[..., None] * scale[..., None, :])
    alike = np.where(np.eye(len(weights), dtype=bool), 1.0, alike)
    to_low, to_high = weights * (low - means), weights * (high - means)
    down, up = np.where(weights > 0, to_low, to_high), np.where(weights > 0, to_high, to_low)
    student = np.sqrt(np.maximum(_variance(squares, weights).max(0), 0))
    total = (weights * means).sum(-1)
    return (
        total - np.maximum(student, _length(down, alike)),
        total + np.maximum(student, _length(up, alike)),
    )


def _one_rate(means: Floats, rows: Floats, off: Floats, t: Floats) -> tuple[Floats, Floats]:
    """Limits of each rate, `off` by that much, squared; t: that of seeds."""
    most = rows / t**2
    units = np.minimum(np.where(off > 0, means * (1 - means) / np.maximum(off, _TINY), most), most)
    row = 1 / (units * t**2)
    low = _score(np.maximum(means - row, 0), units, -1)
    high = _score(np.minimum(means + row, 1), units, 1)
    return (
        np.where(means <= row, 0.0, np.minimum(low, means)),
        np.where(means >= 1 - row, 1.0, np.maximum(high, means)),
    )


def _score(shares: Floats, units: Floats, sign: int) -> Floats:
    """One end of Wilson's interval, `units` being n/t²."""
    root = np.sqrt(shares * (1 - shares) / units + 1 / (4 * units**2))
    ends: Floats = (shares + 1 / (2 * units) + sign * root) / (1 + 1 / units)
    return ends


def _variance(covariances: Floats, weights: Floats) -> Floats:
    """(…, parts, parts) → (…) of the weighted sum of the parts."""
    variance: Floats = (covariances * weights * weights[:, None]).sum((-2, -1))
    return variance


def _products(values: Floats) -> Floats:
    """(…, parts, n) → (…, parts, parts) sums of products."""
    products: Floats = values @ values.swapaxes(-1, -2)
    return products


def _length(sides: Floats, alike: Floats) -> Floats:
    """Length of the sum of vectors with these lengths and cosines."""
    squared = (alike * sides[..., None] * sides[..., None, :]).sum((-2, -1))
    length: Floats = np.sqrt(np.maximum(squared, 0))
    return length


def _smooth(means: Floats, rows: Floats) -> Floats:
    """Half a row more of each kind: none of many is no proof of never."""
    return (means + 0.5 / rows) / (1 + 1 / rows)


def _inner(means: Floats, rows: Floats) -> Floats:
    """Variance of one row."""
    smooth = _smooth(means, rows)
    return smooth * (1 - smooth)
