"""pytest tests/report/test_comparisons.py"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from written_experiments import KL, NAIVE, OUTCOME_ONLY, write_sweep

from triggerctl.report.collect import collect
from triggerctl.report.comparisons import SEPARATION, Comparison, compare, holm
from triggerctl.report.few_seeds import few_seeds
from triggerctl.report.power import detectable, power, seeds_to_settle
from triggerctl.report.rows import Group

Cells = Mapping[str, Mapping[int, Mapping[str, float]]]
ALL: Cells = {"naive": NAIVE, "kl_divergence": KL, "outcome_only": OUTCOME_ONLY}


def groups_of(folder: Path, cells: Cells = ALL) -> tuple[Group, ...]:
    return collect([write_sweep(folder / "exp", cells)]).groups


def compared(groups: tuple[Group, ...]) -> dict[tuple[str, str], Comparison]:
    naive = next(group for group in groups if group.name == "naive")
    return {(each.group, each.set): each for each in compare(groups, naive)}


def test_holm_is_as_by_hand() -> None:
    """0.005·4, 0.01·3, 0.03·2, and 0.04·1, which may not be below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_the_p_and_bonferronis(values: list[float]) -> None:
    for p, corrected in zip(values, holm(values), strict=True):
        assert p <= corrected <= min(1.0, len(values) * p) + 1e-12


def test_every_group_meets_the_baseline_on_every_set_and_the_separation(tmp_path: Path) -> None:
    found = compared(groups_of(tmp_path))
    sets = ("outcome", "collateral", "proxy", "truth", "truth_minus_proxy", SEPARATION)
    assert set(found) == {(group, name) for group in ("kl", "outcome_only") for name in sets}
    leak = found["kl", "truth_minus_proxy"]
    assert (leak.baseline, leak.seeds) == ("naive", (1, 5, 42))
    assert leak.differences == pytest.approx((-12 / 120, -19 / 120, -78 / 120))
    assert leak.mean == pytest.approx(-109 / 360)
    assert leak.over_seeds is not None
    assert leak.over_seeds.low < leak.mean < leak.over_seeds.high
    assert leak.over_words is not None
    assert found["kl", "proxy"].over_words is None


def test_separation_is_habit_kept_less_leak(tmp_path: Path) -> None:
    found = compared(groups_of(tmp_path))
    kept = [(found["kl", "outcome"].mean + found["kl", "collateral"].mean) / 2]
    assert found["kl", SEPARATION].mean == pytest.approx(kept[0] - found["kl", "truth_minus_proxy"].mean)


def test_p_is_corrected_over_the_groups_of_a_set(tmp_path: Path) -> None:
    found = compared(groups_of(tmp_path))
    plain = [found[group, "truth"].p or 0 for group in ("kl", "outcome_only")]
    assert [found[group, "truth"].p_holm for group in ("kl", "outcome_only")] == pytest.approx(holm(plain))


def test_only_shared_seeds_count(tmp_path: Path) -> None:
    found = compared(groups_of(tmp_path, {"naive": NAIVE, "kl_divergence": {1: KL[1], 7: KL[5]}}))
    leak = found["kl", "truth_minus_proxy"]
    assert leak.seeds == (1,)
    assert (leak.over_seeds, leak.p, leak.p_holm, leak.seeds_to_settle) == (None, None, None, None)
    none = groups_of(tmp_path / "other", {"naive": NAIVE, "kl_divergence": {7: KL[5]}})
    assert compared(none) == {}


def test_without_a_baseline_nothing_is_compared(tmp_path: Path) -> None:
    assert compare(groups_of(tmp_path), None) == ()


def test_each_experiment_has_its_own_baseline(tmp_path: Path) -> None:
    folders = [write_sweep(tmp_path / name, {"naive": NAIVE, "kl_divergence": KL}) for name in ("one", "two")]
    groups = collect(folders).groups
    naives = [group for group in groups if group.name == "naive"]
    found = compare(groups, naives[0])
    pairs = {(each.group, each.baseline) for each in found}
    kl, naive = ([group.label for group in groups if group.name == name] for name in ("kl", "naive"))
    assert pairs == set(zip(kl, naive, strict=True))


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_to_settle_are_those_of_the_power_tables(effect: float, seeds: int) -> None:
    """Paired t-test, two-sided 0.05, power 0.8."""
    assert seeds_to_settle(0.1 / effect) == seeds
    assert power(seeds, effect) >= 0.8 > power(seeds - 1, effect)


def test_power_is_what_a_simulation_finds() -> None:
    gaps = np.random.default_rng(1).normal(1.2, 1, (20_000, 6))
    found = (stats.ttest_1samp(gaps, 0, axis=1).pvalue < 0.05).mean()
    assert power(6, 1.2) == pytest.approx(found, abs=0.01)


@given(st.floats(1e-4, 5), st.integers(2, 200))
def test_what_so_many_seeds_would_find_and_seeds_to_settle_agree(deviation: float, seeds: int) -> None:
    found = detectable(seeds, deviation)
    assert found is not None
    assert (found <= 0.1) == (seeds_to_settle(deviation) <= seeds)


def test_few_seeds_are_said_to_show_little(tmp_path: Path) -> None:
    groups = groups_of(tmp_path, {"naive": NAIVE, "kl_divergence": KL})
    found = compared(groups)
    needed = found["kl", "truth_minus_proxy"].seeds_to_settle
    sentences = few_seeds(groups, tuple(found.values()))
    assert len(sentences) == 1
    assert sentences[0].startswith("What 3 seeds can show on truth_minus_proxy: a true difference of 0.")
    assert f"to settle one of 0.1 takes about {needed} seeds" in sentences[0]


def test_one_seed_has_no_such_sentence(tmp_path: Path) -> None:
    groups = groups_of(tmp_path, {"naive": {1: NAIVE[1]}, "kl_divergence": {1: KL[1]}})
    assert few_seeds(groups, tuple(compared(groups).values())) == []
