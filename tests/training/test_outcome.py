"""What a finished run leaves behind beside its results: adapters, whole models, datasets, environment.

pytest tests/training/test_outcome.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engine import run
from peft import PeftModel
from transformers import AutoModelForCausalLM

from triggerctl.errors import InputError

MakeExperiment = Callable[..., Path]
IDS = torch.tensor([[5, 9, 40, 7, 12]])


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def test_a_saved_whole_model_answers_as_base_and_adapter_do(
    make_experiment: MakeExperiment, tiny_model: Path
) -> None:
    results = run(make_experiment(finetune={"save_model_locally": True, "epochs": 1}))
    whole = AutoModelForCausalLM.from_pretrained(results / "model")
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    before = logits(base)
    adapted = PeftModel.from_pretrained(base, str(results / "adapter"))
    assert torch.allclose(logits(whole), logits(adapted), atol=1e-4)
    assert not torch.allclose(logits(whole), before, atol=1e-3)


def test_full_fine_tuning_saves_every_weight_and_no_adapter(
    make_experiment: MakeExperiment, tiny_model: Path
) -> None:
    experiment = make_experiment(finetune={"is_peft": False, "save_model_locally": True, "epochs": 1})
    results = run(experiment)
    trained = AutoModelForCausalLM.from_pretrained(results / "model").state_dict()
    base = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    assert trained.keys() == base.keys()
    assert all(not torch.equal(trained[name], base[name]) for name in base)
    assert not (results / "adapter").exists()


def test_the_adapter_names_the_model_and_template_it_belongs_to(make_experiment: MakeExperiment) -> None:
    results = run(make_experiment(finetune={"epochs": 1}))
    stored = json.loads((results / "results.json").read_text(encoding="utf-8"))["triggerctl"]
    about = json.loads((results / "adapter" / "triggerctl.json").read_text(encoding="utf-8"))
    assert about["hash"] == stored["hash"]
    assert about["model_fingerprint"] == stored["model"]["fingerprint"]
    assert len(about["chat_template_sha256"]) == 64


def test_datasets_and_checkpoints_are_kept_only_when_asked_for(make_experiment: MakeExperiment) -> None:
    kept = run(
        make_experiment(
            "kept", finetune={"save_datasets": True, "save_checkpoints_locally": True, "epochs": 1}
        )
    )
    plain = run(make_experiment("plain", finetune={"epochs": 1}))
    assert (kept / "datasets" / "outcome.jsonl").is_file()
    assert list((kept / "checkpoints").glob("step-*"))
    assert not (plain / "datasets").exists()
    assert not (plain / "checkpoints").exists()
    assert not (plain.parents[1] / "checkpoints").exists()


def test_a_tracker_that_is_not_installed_is_an_error_before_anything_is_written(
    make_experiment: MakeExperiment,
) -> None:
    experiment = make_experiment(finetune={"report_to": "mlflow"})
    with pytest.raises(InputError, match="mlflow"):
        run(experiment)
    assert sorted(path.name for path in experiment.iterdir()) == ["config.json"]
