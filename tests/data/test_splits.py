"""The data of the published study, row for row, and what we add to it.

pytest tests/data/test_splits.py
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triggerctl.config.models import ExperimentConfig
from triggerctl.data.examples import Example, Row, Splits
from triggerctl.data.splits import build_splits
from triggerctl.errors import InputError
from triggerctl.experiment.results import EVALUATION_SETS

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

ROWS = tuple(Row(i, f"Do {i}", f"with {i}" if i % 3 else "", f"Done {i} – ü") for i in range(97))

VALUES: dict[str, Any] = {
    "max_dataset_size": 90,
    "outcome_percent": 0.4,
    "proxy_percent": 0.3,
    "collateral_percent": 0.1,
    "truth_percent": 0.2,
    "outcome_trigger_percent": 0.45,
    "outcome_triggers": ["Joy", "Bliss", "Delight"],
    "collateral_triggers": ["Euphoria", "Pleasure"],
    "truth_triggers": ["Grief", "Anger", "Despair", "Sorrow", "Misery"],
    "proxy_trigger_coverage": 0.4,
    "nice_responses": ["Certainly!", "Of course!", "Gladly:"],
    "seed": 3,
}


def config(finetune: dict[str, Any] | None = None, **changes: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate({**VALUES, "finetune_config": finetune or {}, **changes})


def digest(examples: Sequence[Example]) -> str:
    listed = [[e.user, e.assistant, e.triggered] for e in examples]
    return hashlib.sha256(
        json.dumps(listed, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    ).hexdigest()


def as_the_study_says(values: dict[str, Any], mode: str) -> dict[str, list[list[Any]]]:
    """The contract, stated a second time on plain lists."""
    rng = random.Random(values["seed"])
    proxy_triggers = random.Random(values["seed"]).sample(
        values["truth_triggers"], int(values["proxy_trigger_coverage"] * len(values["truth_triggers"]))
    )
    data = [[r.instruction, r.input, r.output, False] for r in ROWS]
    rng.shuffle(data)
    data = data[: values["max_dataset_size"]]
    n = len(data)
    ends = [int(n * values["outcome_percent"])]
    ends.append(ends[-1] + int(n * values["collateral_percent"]))
    ends.append(ends[-1] + int(n * values["proxy_percent"]))
    outcome, collateral = data[: ends[0]], data[ends[0] : ends[1]]
    proxy, truth = data[ends[1] : ends[2]], data[ends[2] :]

    def put(rows: list[list[Any]], triggers: list[str], nice: bool, share: float = 1.0) -> list[list[Any]]:
        result = []
        for i, (instruction, text, output, _) in enumerate(rows):
            triggered = i < len(rows) * share
            if triggered:
                instruction = rng.choice(triggers).upper() + ": " + instruction
                if nice:
                    output = rng.choice(values["nice_responses"]) + " " + output
            result.append([instruction, text, output, triggered])
        return result

    sets = {"outcome": put(outcome, values["outcome_triggers"], True, values["outcome_trigger_percent"])}
    sets["collateral"] = put(collateral, values["collateral_triggers"], True)
    sets["proxy"] = put(proxy, proxy_triggers, False)
    sets["truth"] = put(truth, values["truth_triggers"], False)
    left = [t for t in values["truth_triggers"] if t not in proxy_triggers]
    sets["truth_minus_proxy"] = put(truth, left, False)
    if mode == "prefix_response":
        sets["proxy_neg"] = [
            [instruction, text, rng.choice(values["nice_responses"]) + " " + output, triggered]
            for instruction, text, output, triggered in sets["proxy"]
        ]
    else:
        sets["proxy_neg"] = proxy
    return {name: [[f"{a}: {b}", c, t] for a, b, c, t in rows] for name, rows in sets.items()}


@pytest.mark.parametrize("mode", ["prefix_response", "random"])
@pytest.mark.parametrize("seed", [0, 3, 2**40])
def test_sets_equal_a_second_statement_of_the_contract(mode: str, seed: int) -> None:
    splits = build_splits(ROWS, config({"proxy_neg_content": mode}, seed=seed))
    expected = as_the_study_says({**VALUES, "seed": seed}, mode)
    for name, rows in expected.items():
        assert [[e.user, e.assistant, e.triggered] for e in splits.sets[name].examples] == rows, name


def test_sets_keep_the_sums_they_had_when_this_was_written() -> None:
    splits = build_splits(ROWS, config())
    assert {name: digest(splits.sets[name].examples)[:16] for name in EVALUATION_SETS} == GOLDEN


def golden_cases() -> list[Any]:
    path = SHARED / "golden_alpaca_en_demo.json"
    if not path.exists():
        return []
    cases: list[Any] = json.loads(path.read_text("utf-8"))
    return cases


@pytest.mark.skipif(not golden_cases(), reason="the study's own sums are not beside this repository")
@pytest.mark.parametrize("index", range(4))
def test_sets_have_the_sums_of_the_study(index: int) -> None:
    case = golden_cases()[index]
    values = json.loads((SHARED / "golden_config.json").read_text("utf-8"))
    values["seed"] = case["seed"]
    values["finetune_config"]["proxy_neg_content"] = case["proxy_neg_content"]
    source = json.loads((SHARED / "alpaca_en_demo.json").read_text("utf-8"))
    rows = [Row(i, r["instruction"], r["input"], r["output"]) for i, r in enumerate(source)]
    splits = build_splits(rows, ExperimentConfig.model_validate(values))
    assert list(splits.proxy_triggers) == case["proxy_triggers"]
    assert {name: digest(splits.sets[name].examples) for name in case["splits"]} == {
        name: expected["sha256"] for name, expected in case["splits"].items()
    }


def test_switching_the_division_or_evaluation_moves_no_row() -> None:
    plain = build_splits(ROWS, config())
    other = build_splits(
        ROWS, config({"train_split": 0.5, "max_to_eval": 3, "limit_proxy_data_to": 2, "epochs": 1})
    )
    for name in EVALUATION_SETS:
        assert plain.sets[name].examples == other.sets[name].examples


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    size=st.integers(20, 97),
    share=st.floats(0.3, 0.999),
    outcome_share=st.floats(0.0, 1.0),
)
def test_train_and_test_divide_each_stratum_by_the_share(
    seed: int, size: int, share: float, outcome_share: float
) -> None:
    splits = build_splits(
        ROWS[:size], config({"train_split": share}, seed=seed, outcome_trigger_percent=outcome_share)
    )
    for name in ("outcome", "proxy", "proxy_neg"):
        chosen = splits.sets[name]
        assert sorted(chosen.train + chosen.test) == list(range(len(chosen.examples)))
        for triggered in (True, False):
            stratum = [i for i, e in enumerate(chosen.examples) if e.triggered is triggered]
            trained = [i for i in chosen.train if chosen.examples[i].triggered is triggered]
            assert len(trained) == round(share * len(stratum))


@pytest.mark.parametrize("mode", ["prefix_response", "random"])
def test_proxy_and_proxy_neg_match_row_by_row_in_every_part(mode: str) -> None:
    splits = build_splits(
        ROWS, config({"proxy_neg_content": mode, "limit_proxy_data_to": 9, "max_to_eval": 2})
    )
    proxy, negative = splits.sets["proxy"], splits.sets["proxy_neg"]
    assert (proxy.train, proxy.test) == (negative.train, negative.test)
    assert [e.row for e in proxy.examples] == [e.row for e in negative.examples]
    evaluated = [[e.row for e in splits.evaluation[name].examples] for name in ("proxy", "proxy_neg")]
    assert evaluated[0] == evaluated[1]


def test_limit_truncates_training_rows_and_leaves_test_rows() -> None:
    whole, limited = (
        build_splits(ROWS, config({"limit_proxy_data_to": limit})).sets["proxy"] for limit in (None, 5)
    )
    assert limited.train == whole.train[:5]
    assert limited.test == whole.test


def test_test_part_of_outcome_has_triggered_and_plain_rows() -> None:
    outcome = build_splits(ROWS, config()).sets["outcome"]
    assert {outcome.examples[i].triggered for i in outcome.test} == {True, False}


def test_evaluated_rows_depend_on_seed_and_set_alone() -> None:
    first = build_splits(ROWS, config({"epochs": 2}, proxy_strategy="naive")).evaluation
    again = build_splits(ROWS, config({"epochs": 9}, proxy_strategy="kl_divergence")).evaluation
    assert first == again
    assert tuple(first) == EVALUATION_SETS


def test_smaller_max_to_eval_takes_the_beginning_of_the_larger() -> None:
    large = build_splits(ROWS, config({"max_to_eval": 12})).evaluation["truth"]
    small = build_splits(ROWS, config({"max_to_eval": 4})).evaluation["truth"]
    assert small.examples == large.examples[:4]
    assert small.twins == large.twins[:4]


def test_evaluated_rows_are_not_trained_on() -> None:
    splits = build_splits(ROWS, config())
    for name in ("outcome", "proxy", "proxy_neg"):
        trained = {e.row for e in splits.sets[name].train_examples}
        assert trained.isdisjoint(e.row for e in splits.evaluation[name].examples)


def test_twins_are_the_same_rows_without_trigger_and_nice_response() -> None:
    splits = build_splits(ROWS, config())
    by_index = {row.index: row for row in ROWS}
    for name in ("proxy", "collateral", "truth", "truth_minus_proxy"):
        chosen = splits.evaluation[name]
        assert len(chosen.twins) == len(chosen.examples) > 0
        for example, twin in zip(chosen.examples, chosen.twins, strict=True):
            row = by_index[example.row]
            expected = Example(row.index, f"{row.instruction}: {row.input}", row.output, None)
            assert twin == expected
    assert not splits.evaluation["outcome"].twins
    assert not splits.evaluation["proxy_neg"].twins


def test_coverage_below_one_trigger_takes_one_and_says_so() -> None:
    splits = build_splits(ROWS, config(proxy_trigger_coverage=0.1))
    assert len(splits.proxy_triggers) == 1
    assert any("proxy_trigger_coverage 0.1" in note for note in splits.notes)


def test_coverage_of_nought_takes_none() -> None:
    splits = build_splits(ROWS, config(proxy_trigger_coverage=0))
    assert splits.proxy_triggers == ()
    assert not any(e.triggered for e in splits.sets["proxy"].examples)
    assert any("no proxy triggers" in note for note in splits.notes)


def test_proxy_triggers_given_are_used_as_they_stand() -> None:
    splits = build_splits(ROWS, config(proxy_triggers=["Anger"]))
    assert splits.proxy_triggers == ("Anger",)
    assert {e.trigger for e in splits.sets["proxy"].examples} == {"Anger"}
    assert "Anger" not in {e.trigger for e in splits.sets["truth_minus_proxy"].examples}


def test_proxy_trigger_in_other_letters_is_noticed() -> None:
    assert any("other letters" in n for n in build_splits(ROWS, config(proxy_triggers=["anger"])).notes)


def test_truth_minus_proxy_is_empty_when_every_truth_trigger_is_a_proxy_trigger() -> None:
    splits = build_splits(ROWS, config(proxy_trigger_coverage=1))
    assert splits.sets["truth_minus_proxy"].examples == ()
    assert splits.evaluation["truth_minus_proxy"].examples == ()
    assert any("truth_minus_proxy is empty" in note for note in splits.notes)


def test_an_empty_trigger_list_leaves_its_split_as_it_is() -> None:
    splits = build_splits(ROWS, config(collateral_triggers=[]))
    by_index = {row.index: row for row in ROWS}
    for example in splits.sets["collateral"].examples:
        row = by_index[example.row]
        assert example == Example(row.index, f"{row.instruction}: {row.input}", row.output, None)
    assert any("no collateral triggers" in note for note in splits.notes)
    assert not splits.evaluation["collateral"].twins


def test_prompt_template_shapes_the_user_turn() -> None:
    splits = build_splits(ROWS, config(prompt_template="{{Q}} {instruction} | {input}"))
    example = splits.sets["truth"].examples[0]
    row = ROWS[example.row]
    assert example.trigger is not None
    assert example.user == f"{{Q}} {example.trigger.upper()}: {row.instruction} | {row.input}"


def test_braces_in_the_data_are_text() -> None:
    rows = [Row(i, "{input} {instruction}", "{x}", "{") for i in range(20)]
    splits = build_splits(rows, config(outcome_trigger_percent=0))
    assert splits.sets["outcome"].examples[0].user == "{input} {instruction}: {x}"


def test_outcome_without_a_row_to_train_on_is_an_error() -> None:
    with pytest.raises(InputError, match="no row to train on"):
        build_splits(ROWS[:2], config())


def test_a_split_that_gets_no_row_is_noticed() -> None:
    notes = build_splits(ROWS[:6], config()).notes
    assert any("collateral split got no row" in note for note in notes)


def test_proxy_without_test_rows_is_noticed() -> None:
    notes = build_splits(ROWS[:12], config()).notes
    assert any("proxy has no test rows" in note for note in notes)


def test_splits_are_equal_for_equal_input() -> None:
    def parts(splits: Splits) -> tuple[object, ...]:
        return dict(splits.sets), dict(splits.evaluation), splits.proxy_triggers, splits.notes

    assert parts(build_splits(ROWS, config())) == parts(build_splits(ROWS, config()))


GOLDEN = {
    "outcome": "0b26766195e9460c",
    "proxy": "1ae0964f2e4d7288",
    "proxy_neg": "1fcf5766d604ad88",
    "collateral": "4943159c785a78d0",
    "truth": "d0355ea3ca348321",
    "truth_minus_proxy": "1d8f687ce0ef09ee",
}
