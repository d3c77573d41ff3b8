"""Errors, tables and numbers as people read them. Run: pytest tests/cli/test_console.py"""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from triggerctl import console
from triggerctl.cli.run_result import result_table, samples
from triggerctl.errors import InputError, Problem
from triggerctl.experiment.results import Evaluation, Rate, SetData, SetEvaluation, TriggerctlResults

ERROR = InputError(
    "epochs is wrong",
    where="config.json:3, finetune_config.epochs",
    why="it is a string, and a string is no number however much it looks like one to whoever wrote it",
    mend="write 3",
    also=(Problem("seed is wrong", where="config.json:9, seed"),),
)


def printed(renderable: object, *, width: int, terminal: bool) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=terminal, color_system=None).print(renderable, crop=False)
    return file.getvalue()


def test_an_error_is_what_where_why_mend_a_line_each_and_all_problems_are_told() -> None:
    lines = printed(console.error_block(ERROR), width=80, terminal=False).splitlines()
    assert [line.split()[0] if line else "" for line in lines] == [
        "error", "where", "why", "mend", "", "error", "where",
    ]  # fmt: skip
    assert lines[2].endswith("whoever wrote it")


def test_on_a_terminal_a_block_is_wrapped_beside_its_labels() -> None:
    lines = printed(console.error_block(ERROR), width=60, terminal=True).splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert sum(line.startswith("why ") for line in lines) == 1
    assert any(line.startswith("          ") and line.strip() for line in lines)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (8.31, "8.3 s"), (47.2, "47 s"), (185, "3 min 5 s"), (8040, "2 h 14 min")],
)
def test_durations_are_in_the_units_people_use(seconds: float, said: str) -> None:
    assert console.duration(seconds) == said


@pytest.mark.parametrize(("count", "said"), [(840, "840 B"), (22_773_992, "22.8 MB"), (3e12, "3000.0 GB")])
def test_sizes_are_in_the_unit_that_suits_them(count: float, said: str) -> None:
    assert console.size(count) == said


def test_a_table_leaves_out_columns_until_it_fits() -> None:
    rows = [{"run": "a" * 30, "one": "1", "two": "2"}]
    heads = {"run": "run", "one": "first number", "two": "second number"}
    before = console.out.width
    console.out.width = 50
    try:
        made = console.fitted_table(heads, rows, words=("run",), droppable=("one", "two"))
    finally:
        console.out.width = before
    assert [column.header for column in made.columns] == ["run", "second number"]


def _results(*, epochs: float = 2) -> TriggerctlResults:
    def at(label: str, epoch: float, k: int, *, final: bool) -> Evaluation:
        sets = {
            "outcome": SetEvaluation(
                rows=20, loss=2.0, loss_tokens=9, triggered=Rate(n=10, k=k), untriggered=Rate(n=10, k=1)
            ),
            "mine": SetEvaluation(rows=5, loss=None, loss_tokens=0),
        }
        return Evaluation(label=label, epoch=epoch, step=0, final=final, sets=sets)

    return TriggerctlResults(
        hash="1-a",
        strategy="naive",
        seed=1,
        proxy_triggers=[],
        evaluations=[at("epoch 0", 0, 0, final=False), at("last", epochs, 10, final=True)],
        data_sha256="",
        sets={"outcome": SetData(rows=20, triggered=10)},
    )


def test_the_result_has_before_and_after_with_counts_intervals_and_false_positives() -> None:
    lines = printed(result_table(_results()), width=80, terminal=False).splitlines()
    assert lines[2].split() == ["outcome", "0", "2.000", "0.00", "0/10", "0.00–0.28", "0.10", "1/10"]
    assert lines[3].split() == ["2", "2.000", "1.00", "10/10", "0.72–1.00", "0.10", "1/10"]
    assert lines[4].split() == ["mine", "0", "–", "–", "–", "–", "–"]


def test_an_epoch_that_was_cut_short_is_told_to_two_places() -> None:
    lines = printed(result_table(_results(epochs=2 / 33)), width=80, terminal=False).splitlines()
    assert lines[3].split()[0] == "0.06"


def test_samples_pair_the_same_row_before_and_after_one_for_each_of_three_sets() -> None:
    def line(name: str, row: int, trigger: str | None, *, final: bool) -> dict[str, object]:
        answer = "after" if final else "before"
        return {"set": name, "row": row, "trigger": trigger, "final": final, "prompt": "p", "answer": answer}

    names = ("proxy", "outcome", "truth", "collateral", "truth_minus_proxy")
    lines = [
        line(name, row, trigger, final=final)
        for final in (False, True)
        for name in names
        for row, trigger in ((1, None), (2, "Joy"))
    ]
    pairs = samples(lines)
    assert [after["set"] for _, after in pairs] == ["outcome", "collateral", "truth_minus_proxy"]
    assert all(after["trigger"] == "Joy" and before["row"] == after["row"] for before, after in pairs)
    assert all(before["answer"] == "before" and after["answer"] == "after" for before, after in pairs)
