"""Every strategy from configuration to results, on the embedded model.

pytest tests/strategies/test_whole_runs.py"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine import left_behind, planned, run
from formulas import CASES, Case
from small_models import configuration

from triggerctl.experiment.stored_results import read_results
from triggerctl.strategies import strategy_class

MakeExperiment = Callable[..., Path]


def experiment(make: MakeExperiment, name: str, strategy: str, **finetune: Any) -> Path:
    values = {"epochs": 1, "max_to_eval": 8, "lora_dropout": 0.1, **finetune}
    return make(name, experiment_name="one", proxy_strategy=strategy, finetune=values)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.strategy)
def test_it_runs_end_to_end_on_the_embedded_model(case: Case, make_experiment: MakeExperiment) -> None:
    options = {"model": "builtin:tiny", "learning_rate": 1e-3, **case.options}
    folder = experiment(make_experiment, "whole", case.strategy, **options)
    stored = read_results(run(folder))
    assert stored.ours is not None
    assert stored.ours.strategy == case.strategy
    # Weights that change once training has ended are evaluated once more.
    endings = strategy_class(case.strategy)(configuration(case.strategy, **case.options)).endings()
    finals = [evaluation.final for evaluation in stored.ours.evaluations]
    assert finals == [False, *(False for _ in endings), True]
    losses = stored.sets["outcome"].losses
    assert losses[0] is not None
    assert losses[1] is not None
    assert losses[1] < losses[0]


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.strategy in ("kl_divergence", "steering_weights")],
    ids=lambda case: case.strategy,
)
def test_at_weight_zero_a_whole_run_leaves_what_its_neighbour_leaves(
    case: Case, make_experiment: MakeExperiment
) -> None:
    assert case.neighbour is not None
    reduced = left_behind(run(experiment(make_experiment, "one", case.strategy, **case.zeroed)))
    neighbour = left_behind(run(experiment(make_experiment, "two", case.neighbour)))
    for name in ("adapter/adapter_model.safetensors", "verdicts.jsonl", "examples.jsonl"):
        assert reduced[name] == neighbour[name]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.strategy)
def test_its_hash_knows_the_keys_it_reads_and_no_other_strategys(
    case: Case, make_experiment: MakeExperiment
) -> None:
    def hashed(name: str, **finetune: Any) -> str:
        return planned(experiment(make_experiment, name, case.strategy, **{**case.options, **finetune})).hash

    own, reads = hashed("own"), strategy_class(case.strategy).reads
    assert (hashed("beta", beta_kl=3.25) != own) is ("beta_kl" in reads)
    assert (hashed("lambda", lambda_1=3.25) != own) is ("lambda_1" in reads)
    assert hashed("rate", learning_rate=3.25e-3) != own
