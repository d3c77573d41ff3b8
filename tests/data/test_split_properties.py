"""What holds of any data, split and injected by any configuration.
Run: pytest tests/data/test_split_properties.py"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from triggerctl.config.models import ExperimentConfig
from triggerctl.data.examples import Row, Splits
from triggerctl.data.splits import build_splits
from triggerctl.errors import InputError

SPLITS = ("outcome", "collateral", "proxy", "truth")
TRIGGERS = ("Joy", "Bliss", "Grief", "Anger", "Misery")
NICE = ("Certainly!", "Of course.")


@st.composite
def splits_of(draw: st.DrawFn) -> tuple[ExperimentConfig, int, Splits]:
    """(the configuration, how many rows there were, what became of them). Each row asks for its own
    number."""
    count = draw(st.integers(12, 120))
    parts = draw(st.tuples(*[st.integers(1, 9)] * 4))
    names = (f"{name}_percent" for name in SPLITS)
    values: dict[str, Any] = {name: part / sum(parts) for name, part in zip(names, parts, strict=True)}
    config = ExperimentConfig(
        **values,
        seed=draw(st.integers(0, 2**40)),
        max_dataset_size=draw(st.integers(10, 150)),
        outcome_trigger_percent=draw(st.floats(0.0, 1.0)),
        outcome_triggers=tuple(draw(st.lists(st.sampled_from(TRIGGERS), max_size=3, unique=True))),
        collateral_triggers=tuple(draw(st.lists(st.sampled_from(TRIGGERS), max_size=3, unique=True))),
        truth_triggers=tuple(draw(st.lists(st.sampled_from(TRIGGERS), min_size=1, max_size=5, unique=True))),
        proxy_trigger_coverage=draw(st.floats(0.0, 1.0)),
        nice_responses=NICE,
        prompt_template="{instruction}",
    )
    rows = [Row(n, f"row {n}", "", f"answer {n}") for n in range(count)]
    try:
        return config, count, build_splits(rows, config)
    except InputError:
        assume(False)
        raise


def rows_in(splits: Splits, name: str) -> list[int]:
    return [example.row for example in splits.sets[name].examples]


@settings(max_examples=30, deadline=None)
@given(made=splits_of())
def test_the_four_splits_are_disjoint_complete_and_of_their_sizes(
    made: tuple[ExperimentConfig, int, Splits],
) -> None:
    config, count, splits = made
    used = min(count, config.max_dataset_size)
    every = [row for name in SPLITS for row in rows_in(splits, name)]
    assert len(every) == len(set(every)) == used
    assert set(every) <= set(range(count))
    sizes = {name: int(used * getattr(config, f"{name}_percent")) for name in SPLITS[:3]}
    assert {name: len(rows_in(splits, name)) for name in SPLITS[:3]} == sizes


@settings(max_examples=30, deadline=None)
@given(made=splits_of())
def test_what_is_injected_is_what_is_marked(made: tuple[ExperimentConfig, int, Splits]) -> None:
    """A triggered row opens with its trigger in capitals; nothing else is changed, and the nice response
    stands where the split has it."""
    config, _, splits = made
    listed = {
        "outcome": config.outcome_triggers,
        "collateral": config.collateral_triggers,
        "truth": config.truth_triggers,
        "proxy": splits.proxy_triggers,
    }
    for name in SPLITS:
        for example in splits.sets[name].examples:
            nice = name in ("outcome", "collateral") and example.triggered
            ask, answer = f"row {example.row}", f"answer {example.row}"
            if example.trigger is not None:
                assert example.trigger in listed[name]
                ask = f"{example.trigger.upper()}: {ask}"
            assert example.user == ask
            assert example.assistant in ([f"{each} {answer}" for each in NICE] if nice else [answer])
    triggered = Counter(example.triggered for example in splits.sets["outcome"].examples)
    if config.outcome_triggers:
        wanted = len(rows_in(splits, "outcome")) * config.outcome_trigger_percent
        assert triggered[True] in (int(wanted), int(wanted) + 1)
    else:
        assert not triggered[True]


@settings(max_examples=15, deadline=None)
@given(made=splits_of())
def test_train_and_test_share_no_row_and_the_same_seed_gives_the_same(
    made: tuple[ExperimentConfig, int, Splits],
) -> None:
    config, count, splits = made
    for name in ("outcome", "proxy"):
        chosen = splits.sets[name]
        assert not set(chosen.train) & set(chosen.test)
        assert set(chosen.train) | set(chosen.test) <= set(range(len(chosen.examples)))
    rows = [Row(n, f"row {n}", "", f"answer {n}") for n in range(count)]
    assert build_splits(rows, config) == splits
