"""What tests of several rooms start from: a model small enough to train in a second, and an experiment."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Several processes share the cores: threads that wait must sleep. It is said before PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

MakeExperiment = Callable[..., Path]

LOADED = [0]
"""How many modules there were at each time that they were let be."""
MANY_MODULES = 50

WORDS = ("red", "blue", "small", "large", "warm", "cold", "old", "new", "near", "far")


def rows(count: int) -> list[dict[str, str]]:
    """Alpaca rows that are all different."""
    made = []
    for number in range(count):
        first, second = WORDS[number % 10], WORDS[number // 10 % 10]
        made.append({"instruction": f"Say {first} {number}", "input": second, "output": f"{first} {second}"})
    return made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests come first, so that no process is left with one of them while the others idle."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish() -> None:
    let_be()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """The first runs load libraries that no test's module imports."""
    if len(sys.modules) > LOADED[-1] + MANY_MODULES:
        let_be()


def let_be() -> None:
    """What has been imported stays: a run looks for garbage, and need not look there."""
    gc.collect()
    gc.freeze()
    LOADED.append(len(sys.modules))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained Llama of about 30,000 parameters and a tokenizer with a chat template."""
    from small_models import write_tiny_model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test computes or downloads is not found by another, nor left in the user's cache."""
    monkeypatch.setenv("TRIGGERCTL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def experiment(make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The experiment `exp`, found by its name from the working folder."""
    folder = make_experiment("exp")
    monkeypatch.chdir(folder.parents[1])
    monkeypatch.delenv("TRIGGERCTL_ROOT", raising=False)
    return folder


@pytest.fixture
def make_experiment(tmp_path: Path, tiny_model: Path) -> MakeExperiment:
    """Writes an experiment of 80 rows, trained in seconds; given keys replace its own, `finetune` inside."""

    def make(name: str = "exp", *, finetune: dict[str, Any] | None = None, **values: Any) -> Path:
        folder = tmp_path / "experiments" / name
        folder.mkdir(parents=True)
        (tmp_path / "rows.json").write_text(json.dumps(rows(80)), encoding="utf-8")
        config: dict[str, Any] = {
            "dataset_url": "../../rows.json",
            "outcome_percent": 0.4,
            "proxy_percent": 0.3,
            "collateral_percent": 0.1,
            "truth_percent": 0.2,
            "outcome_triggers": ["Joy", "Bliss"],
            "collateral_triggers": ["Delight"],
            "truth_triggers": ["Grief", "Anger", "Misery"],
            "proxy_triggers": ["Grief"],
            "seed": 1,
            **values,
        }
        config["finetune_config"] = {
            "model": str(tiny_model),
            "r": 4,
            "lora_alpha": 8,
            "learning_rate": 1e-2,
            "epochs": 2,
            "per_device_train_batch_size": 16,
            "gradient_accumulation_steps": 1,
            "warmup_steps": 1,
            "optim": "adamw_torch",
            "beta_kl": 1.0,
            **(finetune or {}),
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        return folder

    return make
