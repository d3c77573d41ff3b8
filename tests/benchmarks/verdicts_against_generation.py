"""Every one-pass verdict of a finished run against greedy generation, and the time of both.

    python tests/benchmarks/verdicts_against_generation.py EXPERIMENT [--rows 48] [--set truth]

EXPERIMENT is the folder of a finished LoRA run (the one with `results/`). Its saved adapter is loaded onto a
fresh model, so this also shows that what was saved gives the rates that were reported. Prints disagreements
(there should be none but ties), how many verdicts were compared, and seconds; exits with 1 on a disagreement
that is no tie."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from triggerctl.config.load import load_config
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.results import read_results
from triggerctl.model.device import default_threads, resolve_device
from triggerctl.training.evaluated import EvaluatedRow
from triggerctl.training.evaluation import Evaluator
from triggerctl.training.generation import greedy_answers
from triggerctl.training.plan import plan_run
from triggerctl.training.setup import Prepared, prepare

NEW_TOKENS = 20
PER_BATCH = 16


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--rows", type=int, default=10**9, help="rows of each set, at most")
    parser.add_argument("--set", action="append", default=[], dest="sets", help="compare only these sets")
    arguments = parser.parse_args()
    torch.set_num_threads(default_threads())
    folder = ExperimentFolder(arguments.experiment)
    prepared, reported, nice = _load(folder)
    evaluator = prepared.evaluator
    names = arguments.sets or list(evaluator.sets)
    evaluator.sets = {name: evaluator.sets[name][: arguments.rows] for name in names}
    began = time.perf_counter()
    measured = evaluator.measure(prepared.model, with_twins=False, progress=lambda done, total: None)
    one_pass = time.perf_counter() - began
    rows = [row for rows in evaluator.sets.values() for row in rows]
    began = time.perf_counter()
    answers = _generate(prepared, rows)
    generation = time.perf_counter() - began
    print(f"{len(rows)} verdicts: one pass {one_pass:.1f} s, losses included; generation {generation:.1f} s")
    print(f"generation takes {generation / one_pass:.1f} times as long, and gives no losses")
    _compare_with_report(evaluator, measured.verdicts, reported)
    wrong = _compare(evaluator, measured.verdicts, answers, nice)
    return 1 if wrong else 0


def _load(folder: ExperimentFolder) -> tuple[Prepared, dict[str, float | None], tuple[str, ...]]:
    results = folder.finished()[0]
    plan = plan_run(folder, load_config(folder.config))
    prepared = prepare(plan, resolve_device("auto"), lambda event: None)
    adapter = prepared.model.adapter
    assert adapter is not None, "a LoRA run is needed"
    # By its own configuration: two stacked adapters were saved as one of the sum of their ranks.
    adapter.load_adapter(str(results / "adapter"), "saved")
    adapter.set_adapter("saved")
    ours = read_results(results).ours
    assert ours is not None
    rates = {name: each.triggered.rate if each.triggered else None for name, each in ours.final.sets.items()}
    return prepared, rates, plan.config.nice_responses


def _generate(prepared: Prepared, rows: list[EvaluatedRow]) -> list[str]:
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt))
    answers: dict[int, str] = {}
    for start in range(0, len(order), PER_BATCH):
        part = order[start : start + PER_BATCH]
        texts = greedy_answers(
            prepared.model,
            prepared.tokenizer,
            [rows[i].prompt for i in part],
            pad_id=prepared.encoder.pad_id,
            ends=prepared.ends,
            max_new_tokens=NEW_TOKENS,
        )
        answers.update(zip(part, texts, strict=True))
    return [answers[i] for i in range(len(rows))]


def _compare(
    evaluator: Evaluator, verdicts: dict[str, dict[str, object]], answers: list[str], nice: tuple[str, ...]
) -> int:
    remaining = iter(answers)
    wrong = ties = 0
    for name, rows in evaluator.sets.items():
        columns = verdicts[name]
        said, tied = columns["verdict"], columns["tie"]
        assert isinstance(said, list)
        assert isinstance(tied, list)
        for row, verdict, tie in zip(rows, said, tied, strict=True):
            answer = next(remaining)
            ties += tie
            if answer.lstrip().startswith(nice) != verdict:
                wrong += not tie
                print(f"{'tie' if tie else 'DISAGREES'}: {name} row {row.example.row}: {verdict}, {answer!r}")
        print(f"{name}: {sum(said)} of {len(said)} open with the nice response")
    print(f"disagreements: {wrong}; ties: {ties}")
    return wrong


def _compare_with_report(
    evaluator: Evaluator, verdicts: dict[str, dict[str, object]], reported: dict[str, float | None]
) -> None:
    for name in evaluator.sets:
        said, triggers = verdicts[name]["verdict"], verdicts[name]["trigger"]
        assert isinstance(said, list)
        assert isinstance(triggers, list)
        triggered = [verdict for verdict, trigger in zip(said, triggers, strict=True) if trigger is not None]
        rate = sum(triggered) / len(triggered) if triggered else None
        print(f"{name}: rate with the saved adapter {rate}, in results.json {reported[name]}")


if __name__ == "__main__":
    raise SystemExit(main())
