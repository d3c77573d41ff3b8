"""How often the report's 95 % intervals hold the truth, beside other ways of making them, and how often its
p-values see a difference where there is none.

    python tests/benchmarks/interval_coverage.py                  the tables; exits with 1 where a rule breaks
    python tests/benchmarks/interval_coverage.py --write FILE     and as Markdown
    python tests/benchmarks/interval_coverage.py --repeats 300 --quick    a look at a few worlds
    python tests/benchmarks/interval_coverage.py --repeats 300 --random 5    other draws, to seek a method on

The worlds are those of simulated_runs.py, the other ways of rival_intervals.py."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from rival_intervals import DIFFERENCE, NEW_WORDS, ONE_RATE, OURS, Limits, ours_over_words
from scipy.special import stdtr
from simulated_runs import Drawn, Floats, Noise, draw

from triggerctl.report.crossed import Spread, p_of_zero, spread

SEEDS, WORDS = (3, 5, 10), (1, 5, 12)
RATES = (0.02, 0.1, 0.3, 0.5, 0.9, 0.98)

NOISES = (
    Noise(0, 0, 0),
    Noise(0.5, 0.5, 0.25),
    Noise(1, 0, 0.5),
    Noise(1, 0.5, 0.5),
    Noise(0.5, 1, 0.5),
    Noise(0.5, 1.5, 0.5),
    Noise(1.5, 1, 0.5),
)
BEYOND = (Noise(2.5, 1, 0.5), Noise(0.5, 2.5, 0.5))
PAIRED = (
    Noise(0, 0, 0, 0, 0),
    Noise(0.5, 0.5, 0.25, 0.25, 0.25),
    Noise(1, 0.5, 0.5, 0.5, 0.5),
    Noise(1, 1, 0.5, 1, 0.5),
    Noise(0.5, 0.5, 0.5, 1.5, 0.5),
)
PAIRS = ((0.02, 0.02), (0.1, 0.02), (0.3, 0.02), (0.3, 0.1), (0.5, 0.1), (0.5, 0.5), (0.98, 0.3), (0.9, 0.98))
"""Rates of a baseline and of a strategy."""
SEPARATIONS = ((1.0, 1.0, 0.02), (0.98, 0.9, 0.3), (0.9, 0.7, 0.1), (0.7, 0.5, 0.5), (0.98, 0.98, 0.98))
"""Rates of outcome, collateral and leak."""
NULLS = (
    Noise(0, 0.5, 0, 0, 0),
    Noise(0.5, 0.5, 0.25, 0.25, 0),
    Noise(1, 1, 0.5, 0.5, 0),
    Noise(1, 1, 0.5, 1.5, 0),
)


PREFACE = Path(__file__).with_suffix(".md")


@dataclass(frozen=True)
class Cell:
    """How one way did in one world."""

    way: str
    seeds: int
    words: int
    world: str
    covers: float
    width: float


def judge(
    way: str, seeds: int, words: int, world: str, found: Limits, truth: Floats, reach: tuple[float, float]
) -> Cell:
    low, high = (np.clip(end, *reach) for end in found)
    truth = np.broadcast_to(truth, (max(len(low), len(truth)),))[: len(low)]
    held = (low <= truth + 1e-12) & (truth <= high + 1e-12)
    return Cell(way, seeds, words, world, float(held.mean()), float(np.nanmean(high - low)))


def one_rate(
    random: np.random.Generator, repeats: int, noises: Sequence[Noise], rates: Sequence[float]
) -> tuple[list[Cell], list[Cell]]:
    """Cells over new seeds, and over new words as well."""
    these, new = [], []
    for seeds, words, noise, rate in product(SEEDS, WORDS, noises, rates):
        drawn = draw(random, repeats, seeds, words, [rate], noise)
        found = spread(drawn.k, drawn.n)
        world = f"rate {rate}, seeds {noise.seeds}, words {noise.words}"
        for way, make in ONE_RATE.items():
            these.append(judge(way, seeds, words, world, make(found, drawn), drawn.these_words[:, 0], (0, 1)))
        for way, make in NEW_WORDS.items() if words > 1 else ():
            new.append(judge(way, seeds, words, world, make(found, drawn), drawn.all_words, (0, 1)))
    return these, new


def differences(
    random: np.random.Generator, repeats: int, noises: Sequence[Noise]
) -> tuple[list[Cell], list[Cell]]:
    these, new = [], []
    weights = np.array([-1.0, 1.0])
    for seeds, words, noise, rates in product(SEEDS, WORDS, noises, PAIRS):
        drawn = draw(random, repeats, seeds, words, rates, noise)
        found = spread(drawn.k, drawn.n)
        world = f"{rates[0]} → {rates[1]}, seeds {noise.seeds}, own {noise.own_seeds}"
        over_seeds, over_words = _weighed(drawn, found, weights, seeds, words, world)
        these += over_seeds
        new += over_words
    return these, new


def separations(
    random: np.random.Generator, repeats: int, noises: Sequence[Noise]
) -> tuple[list[Cell], list[Cell]]:
    these, new = [], []
    weights = np.array([0.5, 0.5, -1.0])
    for seeds, words, noise, rates in product(SEEDS, WORDS, noises, SEPARATIONS):
        drawn = draw(random, repeats, seeds, words, rates, noise, same_words=False)
        apart = np.zeros((repeats, 3, seeds, 3 * words)), np.zeros((repeats, 3, seeds, 3 * words))
        for place in range(3):
            for whole, part in zip(apart, (drawn.k, drawn.n), strict=True):
                whole[:, place, :, place * words : (place + 1) * words] = part[:, place]
        found = spread(*apart, families=np.repeat(np.arange(3), words))
        world = f"outcome {rates[0]}, collateral {rates[1]}, leak {rates[2]}, seeds {noise.seeds}"
        over_seeds, over_words = _weighed(drawn, found, weights, seeds, words, world)
        these += over_seeds
        new += over_words
    return these, new


def _weighed(
    drawn: Drawn, found: Spread, weights: Floats, seeds: int, words: int, world: str
) -> tuple[list[Cell], list[Cell]]:
    """A weighted sum's intervals in one world: over these very words, and over new ones where there are
    several."""
    truth = drawn.these_words @ weights
    these = [
        judge(way, seeds, words, world, make(found, weights), truth, (-1, 1))
        for way, make in DIFFERENCE.items()
    ]
    if words == 1:
        return these, []
    ends, truth = ours_over_words(found, weights), np.array([drawn.all_words @ weights])
    return these, [judge(OURS, seeds, words, world, ends, truth, (-1, 1))]


@dataclass(frozen=True)
class Alarm:
    """Share of repeats in which Holm's correction let a difference pass that is none."""

    seeds: int
    strategies: int
    world: str
    ours: float
    plain: float


def false_alarms(random: np.random.Generator, repeats: int, rates: Sequence[float]) -> list[Alarm]:
    """With no difference anywhere, Holm lets one pass just where the smallest p is at most 0.05 over their
    number."""
    found = []
    for seeds, words, noise, rate, strategies in product(SEEDS, WORDS, NULLS, rates, (1, 3, 6)):
        drawn = draw(random, repeats, seeds, words, [rate] * (strategies + 1), noise)
        least: Floats = np.ones(repeats)
        plain: Floats = np.ones(repeats)
        weights = np.array([-1.0, 1.0])
        for other in range(1, strategies + 1):
            pair = [0, other]
            spreads = spread(drawn.k[:, pair], drawn.n[:, pair])
            least = np.minimum(least, p_of_zero(spreads, weights))
            gap = spreads.rates[:, 1] - spreads.rates[:, 0]
            plain = np.minimum(plain, _t_test(gap))
        bound = 0.05 / strategies
        world = f"rate {rate}, {words} words, seeds {noise.seeds}, own {noise.own_seeds}"
        found.append(
            Alarm(seeds, strategies, world, float((least <= bound).mean()), float((plain <= bound).mean()))
        )
    return found


def _t_test(gap: Floats) -> Floats:
    seeds = gap.shape[-1]
    error = gap.std(-1, ddof=1) / np.sqrt(seeds)
    ratio = np.abs(gap.mean(-1)) / np.where(error > 0, error, 1)
    # All alike and not 0: such a test is certain. All 0: it sees nothing.
    ratio = np.where(error > 0, ratio, np.where(np.abs(gap.mean(-1)) > 0, np.inf, 0.0))
    return np.asarray(2 * stdtr(seeds - 1, -ratio))


def table(cells: Sequence[Cell]) -> list[str]:
    """A line for each way: average coverage, worst cell and average width, for 3, 5 and 10 seeds."""
    lines = [
        "| way | 3 seeds | 5 seeds | 10 seeds | worst world with 5 or 10 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for way in dict.fromkeys(cell.way for cell in cells):
        own = [cell for cell in cells if cell.way == way]
        shown = []
        for seeds in SEEDS:
            some = [cell for cell in own if cell.seeds == seeds]
            covers = [cell.covers for cell in some]
            width = sum(cell.width for cell in some) / len(some)
            shown.append(f"{_mean(covers):.1%}, least {min(covers):.1%}, width {width:.2f}")
        worst = min((cell for cell in own if cell.seeds >= 5), key=lambda cell: cell.covers)
        shown.append(f"{worst.covers:.1%}: {worst.seeds} seeds, {_words(worst.words)}, {worst.world}")
        lines.append("| " + " | ".join([way, *shown]) + " |")
    return lines


def alarm_table(found: Sequence[Alarm]) -> list[str]:
    lines = [
        "| seeds | strategies | the report's, average | worst world | plain t-test, average | worst |",
        "|" + " --- |" * 6,
    ]
    for seeds, strategies in product(SEEDS, (1, 3, 6)):
        own = [alarm for alarm in found if (alarm.seeds, alarm.strategies) == (seeds, strategies)]
        worst = max(own, key=lambda alarm: alarm.ours)
        lines.append(
            f"| {seeds} | {strategies} | {_mean([a.ours for a in own]):.1%} "
            f"| {worst.ours:.1%}: {worst.world} "
            f"| {_mean([a.plain for a in own]):.1%} | {max(a.plain for a in own):.1%} |"
        )
    return lines


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _words(count: int) -> str:
    return f"{count} word" + ("s" if count > 1 else "")


def broken_rules(name: str, cells: Sequence[Cell]) -> list[str]:
    """What of the requirement the report's own way does not meet."""
    own = [cell for cell in cells if cell.way == OURS]
    many, few = [c for c in own if c.seeds >= 5], [c for c in own if c.seeds == 3]
    average = _mean(cell.covers for cell in many)
    found = [] if 0.92 <= average <= 0.98 else [f"{name}: covers {average:.1%} on average"]
    for cells_, least in ((many, 0.9), (few, 0.88)):
        found += [
            f"{name}: covers {c.covers:.1%} with {c.seeds} seeds, {_words(c.words)}, {c.world}"
            for c in cells_
            if c.covers < least
        ]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3000)
    parser.add_argument("--quick", action="store_true", help="few worlds")
    parser.add_argument("--random", type=int, default=2026, metavar="N", help="starts the random numbers")
    parser.add_argument("--write", type=Path, metavar="FILE", help="the tables as Markdown")
    given = parser.parse_args()
    random, start = np.random.default_rng(given.random), time.monotonic()
    step = 3 if given.quick else 1
    noises, paired, rates, beyond = NOISES[::step], PAIRED[::step], RATES[::step], BEYOND[::step]
    sections: list[tuple[str, str, list[str]]] = []
    broken: list[str] = []

    def add(title: str, text: str, cells: Sequence[Cell], *, judged: bool = True) -> None:
        sections.append((title, text, table(cells)))
        if judged:
            broken.extend(broken_rules(title, cells))
        print(f"\n{title}\n" + "\n".join(sections[-1][2]), flush=True)

    these, new = one_rate(random, given.repeats, noises, rates)
    add(
        "One rate, over new seeds with these very words",
        "The interval of a rate in tables and figures.",
        these,
    )
    add(
        "One rate, over new seeds and new words",
        "5 and 12 words; a set with one word claims seeds only.",
        new,
    )
    these, new = differences(random, given.repeats, paired)
    add("A difference to a baseline on the same seeds, words and rows, over new seeds", "", these)
    add("A difference, over new seeds and new words", "", new)
    these, new = separations(random, given.repeats, noises)
    add("Separation, over new seeds", "mean(outcome, collateral) − leak.", these)
    add("Separation, over new seeds and new words", "", new)
    these, new = one_rate(random, given.repeats, beyond, rates)
    add("Beyond: one rate, over new seeds, far wider spreads", "Not judged: see below.", these, judged=False)
    add("Beyond: one rate, over new seeds and new words", "Not judged.", new, judged=False)
    alarms = false_alarms(random, given.repeats, rates)
    sections.append(("False alarms", "", alarm_table(alarms)))
    print("\nFalse alarms\n" + "\n".join(sections[-1][2]))
    for seeds, strategies in product(SEEDS, (1, 3, 6)):
        worst = max(a.ours for a in alarms if (a.seeds, a.strategies) == (seeds, strategies))
        if worst > 0.06:
            broken.append(f"False alarms: {worst:.1%} with {seeds} seeds and {strategies} strategies")
    print(f"\n{time.monotonic() - start:.0f} s; " + ("rules broken:" if broken else "every rule is kept"))
    print("\n".join(broken))
    if given.write is not None:
        given.write.write_text(markdown(sections, given.repeats), encoding="utf-8")
    return 1 if broken else 0


def markdown(sections: Sequence[tuple[str, str, list[str]]], repeats: int) -> str:
    parts = [
        "# How sure the report's intervals are",
        PREFACE.read_text(encoding="utf-8").strip().format(repeats=repeats),
    ]
    for title, text, lines in sections:
        parts += [f"## {title}", *([text] if text else []), "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
