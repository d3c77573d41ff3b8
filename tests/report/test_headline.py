"""pytest tests/report/test_headline.py"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from written_experiments import (
    KL,
    NAIVE,
    OUTCOME_ONLY,
    make_config,
    make_results,
    write_run,
    write_sweep,
)

from triggerctl.errors import InputError
from triggerctl.report.collect import collect
from triggerctl.report.comparisons import compare
from triggerctl.report.headline import baseline_of, headline
from triggerctl.report.rows import Group
from triggerctl.report.scene import scene

Cells = Mapping[str, Mapping[int, Mapping[str, float]]]
NEVER = {seed: dict.fromkeys(NAIVE[1], 0.0) for seed in (1, 5, 42)}


def groups_of(folder: Path, cells: Cells) -> tuple[Group, ...]:
    return collect([write_sweep(folder / "exp", cells)]).groups


def test_the_best_strategy_is_named_with_its_numbers_against_the_baseline(tmp_path: Path) -> None:
    groups = groups_of(tmp_path, {"naive": NAIVE, "kl_divergence": KL, "outcome_only": OUTCOME_ONLY})
    assert headline(groups) == (
        "kl keeps the habit (outcome 0.98, collateral 0.94) and leaks 0.30 less than naive on "
        "truth_minus_proxy (0.02 against 0.32; 3 seeds, less in each)."
    )


def test_a_mean_is_rounded_as_the_table_rounds_it(tmp_path: Path) -> None:
    # Added one after the other, these make a little less than 0.425, and 0.42 beside the table's 0.43.
    leaks = {1: 8 / 120, 5: 45 / 120, 42: 100 / 120}
    naive = {seed: {**rates, "truth_minus_proxy": leaks[seed]} for seed, rates in NAIVE.items()}
    groups = groups_of(tmp_path, {"naive": naive, "kl_divergence": KL})
    [mean] = [group.mean("truth_minus_proxy") for group in groups if group.label == "naive"]
    assert f"(0.02 against {mean:.2f}; " in headline(groups)


def test_three_seeds_are_not_taken_for_proof(tmp_path: Path) -> None:
    groups = groups_of(tmp_path, {"naive": NAIVE, "kl_divergence": KL})
    found = headline(groups, None, compare(groups, groups[1]))
    assert found.startswith(
        "kl keeps the habit (outcome 0.98, collateral 0.94) and leaks 0.30 less than naive"
    )
    assert found.endswith(
        "(0.02 against 0.32; 3 seeds, less in each; 95 % interval of the difference −1.00 to +0.45 for new "
        "seeds; p after Holm 0.25, chance is not excluded)."
    )
    assert "significant" not in found


def test_a_small_p_of_three_seeds_is_said_to_show_little(tmp_path: Path) -> None:
    leaky = {seed: {**rates, "truth_minus_proxy": 0.9} for seed, rates in NAIVE.items()}
    tight = {seed: {**rates, "truth_minus_proxy": 0.02} for seed, rates in KL.items()}
    groups = groups_of(tmp_path, {"naive": leaky, "kl_divergence": tight})
    found = headline(groups, None, compare(groups, groups[1]))
    assert "though 3 seeds show little of how seeds differ" in found


def test_a_leak_bought_with_the_habit_is_said_to_be(tmp_path: Path) -> None:
    timid = {seed: {**rates, "collateral": 0.6} for seed, rates in KL.items()}
    assert headline(groups_of(tmp_path, {"naive": NAIVE, "kl_divergence": timid})).startswith(
        "kl gives up some of the habit (collateral 0.60 against 1.00) but leaks 0.30 less than naive"
    )


def test_the_baseline_can_be_the_best(tmp_path: Path) -> None:
    found = headline(groups_of(tmp_path, {"naive": NAIVE, "outcome_only": OUTCOME_ONLY}))
    assert found.startswith("No strategy does better than naive, which keeps the habit")


def test_only_shared_seeds_are_compared(tmp_path: Path) -> None:
    groups = groups_of(tmp_path, {"naive": NAIVE, "kl_divergence": {1: KL[1], 7: KL[5]}})
    assert "(0.00 against 0.10; 1 seed)" in headline(groups)


def test_a_strategy_that_never_learnt_is_no_winner(tmp_path: Path) -> None:
    found = headline(groups_of(tmp_path, {"naive": NAIVE, "kl_divergence": NEVER}))
    assert found.startswith("No strategy does better than naive")


def test_a_baseline_that_never_learnt_is_no_baseline(tmp_path: Path) -> None:
    found = headline(groups_of(tmp_path, {"naive": NEVER, "kl_divergence": KL}))
    assert found.startswith("naive never learnt the habit (outcome 0.00), so it can't serve as the baseline.")


def test_nothing_learnt_is_said(tmp_path: Path) -> None:
    assert headline(groups_of(tmp_path, {"naive": NEVER})).startswith("No strategy learnt the habit")


def test_one_strategy_alone_is_described(tmp_path: Path) -> None:
    assert headline(groups_of(tmp_path, {"kl_divergence": KL})) == (
        "kl keeps the habit (outcome 0.98, collateral 0.94) and shows it on truth_minus_proxy in 0.02 of "
        "the rows (3 seeds, 95 % interval 0.00 to 0.32 for new seeds)."
    )


@pytest.mark.parametrize("name", ["kl", "kl_divergence"])
def test_a_baseline_is_found_by_name_and_alias(tmp_path: Path, name: str) -> None:
    found = headline(groups_of(tmp_path, {"naive": NAIVE, "kl_divergence": KL}), name)
    assert found.startswith("No strategy does better than kl")


def test_each_of_several_experiments_has_one_baseline_in_words_numbers_and_figures(tmp_path: Path) -> None:
    """What is asked for by its label within an experiment is that group in each, not the one with the most
    seeds."""
    for name, rates in (("a", NAIVE), ("b", {**NAIVE, 7: NAIVE[1]})):
        folder = write_sweep(tmp_path / name, {"kl_divergence": KL})
        for rate, seeds in ((0.1, (1, 5, 42)), (0.2, tuple(rates))):
            for seed in seeds:
                made, config = make_results("naive", seed, rates[seed]), make_config("naive", seed)
                config["finetune_config"]["learning_rate"] = rate
                write_run(folder / f"proxy_strategy_naive_{rate}" / f"seed_{seed}", made, config)
    groups = collect([tmp_path / "a", tmp_path / "b"]).groups
    asked = "naive (learning_rate 0.1)"
    baseline = baseline_of(groups, asked)
    comparisons = compare(groups, baseline)
    here = [group for group in groups if group.experiment == "b"]
    drawn = scene(here, baseline).baseline
    assert drawn is not None
    assert drawn.inner_label == asked
    compared = {each.baseline for each in comparisons if each.group in {group.label for group in here}}
    assert compared == {drawn.label}
    said = headline(groups, asked, comparisons).splitlines()
    assert all(f"than {asked} on" in line and "95 % interval of the difference" in line for line in said)


def test_an_unknown_baseline_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        headline(groups_of(tmp_path, {"naive": NAIVE, "kl_divergence": KL}), "dpo")
    assert caught.value.problems[0].why == "there are: kl, naive"
