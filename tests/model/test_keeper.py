"""A worker's runs share a loaded model, and none of them can tell.

pytest tests/model/test_keeper.py"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine import left_behind, no_figures, planned, run
from torch import nn
from transformers import PreTrainedModel

from triggerctl.config.models import FinetuneConfig
from triggerctl.errors import InterruptedRunError
from triggerctl.model import keeper as keeper_module
from triggerctl.model.adapters import attach_adapter
from triggerctl.model.causal import CausalModel
from triggerctl.model.identity import identify
from triggerctl.model.keeper import ModelKeeper
from triggerctl.model.load import load_checkpoint, locate
from triggerctl.training import run as run_module
from triggerctl.training import setup
from triggerctl.training.events import Event, Stepped
from triggerctl.training.run import execute
from triggerctl.training.setup import Prepared

MakeExperiment = Callable[..., Path]

CPU = torch.device("cpu")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that a checkpoint was loaded from, one for each time."""
    seen: list[Path] = []

    def counted(files: Any, *rest: Any) -> PreTrainedModel:
        seen.append(files.folder)
        return load_checkpoint(files, *rest)

    monkeypatch.setattr(keeper_module, "load_checkpoint", counted)
    return seen


def taken(keeper: ModelKeeper, folder: Path, **options: Any) -> PreTrainedModel:
    finetune = FinetuneConfig(model=str(folder), **options)
    identity = identify(str(folder), revision=None, relative_to=folder)
    dtype = torch.bfloat16 if finetune.dtype == "bfloat16" else torch.float32
    return keeper.network(identity, locate(identity, finetune), finetune, CPU, dtype)


def adapted(network: PreTrainedModel, **options: Any) -> CausalModel:
    finetune = FinetuneConfig(model="any", r=4, **options)
    return CausalModel(network, attach_adapter(network, finetune, seed=1))


def look(network: nn.Module) -> dict[str, object]:
    """Everything of a network that a run could have changed."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    content: dict[str, object] = {
        name: (t.requires_grad, t.grad, t.dtype, t.detach().numpy().tobytes()) for name, t in tensors.items()
    }
    for name, module in network.named_modules():
        plain = {k: v for k, v in vars(module).items() if isinstance(v, bool | int | float | str | None)}
        hooks = {k: len(v) for k, v in vars(module).items() if k.endswith("hooks") and v is not None}
        content[f"module {name}"] = (type(module), plain, set(vars(module)), hooks)
    return content


STRATEGIES = ("naive", "kl", "o_lora")


def test_runs_of_one_worker_are_the_same_as_each_alone(
    make_experiment: MakeExperiment, loads: list[Path]
) -> None:
    """One strategy after the other on the same loaded model, then full fine-tuning on it, then LoRA again."""
    settings: dict[str, dict[str, Any]] = {
        name: {"proxy_strategy": name, "finetune": {"epochs": 1}} for name in STRATEGIES
    }
    settings["full"] = {"finetune": {"epochs": 1, "is_peft": False, "learning_rate": 1e-3}}
    settings["again"] = {**settings["kl"], "seed": 2}
    keeper = ModelKeeper()
    together = {
        name: run(make_experiment(f"{name}_together", experiment_name=name, **values), keeper=keeper)
        for name, values in settings.items()
    }
    assert len(loads) == 2  # once at first, and once after full fine-tuning
    for name, values in settings.items():
        alone = run(make_experiment(f"{name}_alone", experiment_name=name, **values), cache=False)
        a, b = left_behind(together[name]), left_behind(alone)
        for found in (a, b):
            del found["results.json"]["triggerctl"]["cache_entries"]  # type: ignore[index]
        assert a == b, name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_gradient_checkpointing": True},
        {"target_modules": "all-linear", "use_rslora": True},
        {"lora_dropout": 0.3},
    ],
    ids=["plain", "checkpointing", "all linear", "dropout"],
)
def test_a_kept_model_is_as_freshly_loaded(
    options: dict[str, Any], make_experiment: MakeExperiment, tiny_model: Path, loads: list[Path]
) -> None:
    keeper = ModelKeeper()
    run(make_experiment(finetune={"epochs": 1, **options}), keeper=keeper)
    kept = taken(keeper, tiny_model)
    assert len(loads) == 1
    assert look(kept) == look(taken(ModelKeeper(), tiny_model))


def test_stacked_adapters_are_taken_out_too(tiny_model: Path, loads: list[Path]) -> None:
    keeper = ModelKeeper()
    model = adapted(taken(keeper, tiny_model))
    model.stack(seed=2)
    keeper.put_back(model)
    assert look(taken(keeper, tiny_model)) == look(taken(ModelKeeper(), tiny_model))
    assert len(loads) == 2


def test_a_merged_model_is_not_kept(make_experiment: MakeExperiment, loads: list[Path]) -> None:
    """Merged and taken apart again, its weights are as before only to rounding."""
    keeper = ModelKeeper()
    for name in ("one", "two"):
        run(make_experiment(name, finetune={"epochs": 1, "save_model_locally": True}), keeper=keeper)
    assert len(loads) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda model: model.network.register_forward_hook(lambda *values: None),
        lambda model: setattr(model.network.config, "hidden_act", "relu"),
        lambda model: setattr(model.network.model, "norm", nn.Identity()),
        lambda model: setattr(next(model.network.parameters()), "data", torch.zeros(2)),
        lambda model: next(iter(model.network.parameters())).requires_grad_(True),
    ],
    ids=["hook", "configuration", "module", "weight", "trained base weight"],
)
def test_a_model_that_is_not_as_loaded_is_not_kept(
    spoil: Callable[[CausalModel], object], tiny_model: Path, loads: list[Path]
) -> None:
    keeper = ModelKeeper()
    model = adapted(taken(keeper, tiny_model))
    spoil(model)
    keeper.put_back(model)
    taken(keeper, tiny_model)
    assert len(loads) == 2


def test_buffers_and_attributes_that_a_run_changed_are_put_back(tiny_model: Path, loads: list[Path]) -> None:
    """Some position embeddings grow with the longest text that they have seen."""
    keeper = ModelKeeper()
    network = taken(keeper, tiny_model)
    model = adapted(network)
    name, buffer = next(iter(network.named_buffers()))
    before = buffer.clone()
    buffer.mul_(2)
    network.model.longest_seen = 4096
    keeper.put_back(model)
    again = taken(keeper, tiny_model)
    assert torch.equal(dict(again.named_buffers())[name], before)
    assert not hasattr(again.model, "longest_seen")
    assert len(loads) == 1


@pytest.mark.parametrize(
    "other", [{"dtype": "bfloat16"}, {"attn_implementation": "eager"}], ids=["dtype", "attention"]
)
def test_a_model_loaded_otherwise_is_another(
    other: dict[str, Any], tiny_model: Path, loads: list[Path]
) -> None:
    keeper = ModelKeeper()
    keeper.put_back(adapted(taken(keeper, tiny_model)))
    taken(keeper, tiny_model, **other)
    assert len(loads) == 2


def test_a_run_that_did_not_end_well_leaves_no_model(
    make_experiment: MakeExperiment, loads: list[Path]
) -> None:
    keeper, stop = ModelKeeper(), threading.Event()

    def listener(event: Event) -> None:
        if isinstance(event, Stepped):
            stop.set()

    folder = make_experiment()
    with pytest.raises(InterruptedRunError):
        run(folder, listener=listener, stop=stop, keeper=keeper)
    run(folder, keeper=keeper)
    assert len(loads) == 2


@pytest.mark.parametrize("is_peft", [True, False], ids=["lora", "full"])
def test_nothing_of_a_run_outlives_the_next_ones_loading(
    is_peft: bool, make_experiment: MakeExperiment, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[weakref.ref[Any]] = []
    prepare = setup.prepare

    def watched(*values: Any, **named: Any) -> Prepared:
        prepared = prepare(*values, **named)
        things = (prepared.model, prepared.evaluator, *prepared.model.trainable.values())
        left.extend(map(weakref.ref, things))
        if prepared.model.adapter is not None:
            left.append(weakref.ref(prepared.model.adapter))
        return prepared

    monkeypatch.setattr(run_module, "prepare", watched)
    keeper = ModelKeeper()
    settings = {"epochs": 1, "is_peft": is_peft, "learning_rate": 1e-3}
    execute(
        planned(make_experiment(finetune=settings)),
        listener=lambda event: None,
        stop=threading.Event(),
        figures=no_figures,
        device="cpu",
        threads=1,
        keeper=keeper,
    )
    gc.disable()
    try:
        taken(keeper, tiny_model)
    finally:
        gc.enable()
    assert len(left) > 3
    assert [reference for reference in left if reference() is not None] == []
