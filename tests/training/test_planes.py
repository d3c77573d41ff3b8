"""Alignment planes on disk: computed once, refused where they were made for another run.

pytest tests/training/test_planes.py"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine import planned, run
from every_strategy import experiment_for
from safetensors import safe_open

from triggerctl.errors import InputError, InterruptedRunError
from triggerctl.experiment.cache import cache_root
from triggerctl.experiment.claim import claim
from triggerctl.experiment.stored_results import read_results
from triggerctl.training.describe import describe
from triggerctl.training.events import Event, Noted, PhaseStarted
from triggerctl.training.plane_files import read_legacy_plane

MakeExperiment = Callable[..., Path]


def steering(make_experiment: MakeExperiment, name: str, **finetune: Any) -> Path:
    return experiment_for("steering_weights", make_experiment, name=name, **{"epochs": 1, **finetune})


def phases_of(folder: Path) -> list[str]:
    heard: list[Event] = []
    run(folder, listener=heard.append)
    return [event.phase for event in heard if isinstance(event, PhaseStarted)]


@pytest.fixture
def plane(make_experiment: MakeExperiment, tmp_path: Path) -> Path:
    """A plane that a run has left where its configuration said."""
    run(steering(make_experiment, "maker", steering_vector_path="planes/joy.safetensors"))
    path = tmp_path / "experiments" / "maker" / "planes" / "joy.safetensors"
    assert path.is_file()
    return path


def test_a_plane_lies_in_the_cache_and_tells_what_made_it(make_experiment: MakeExperiment) -> None:
    ours = read_results(run(steering(make_experiment, "maker"))).ours
    assert ours is not None
    [entry] = [entry for entry in ours.cache_entries if entry.startswith("planes/")]
    path = cache_root() / entry
    with safe_open(path, framework="pt") as file:
        about = file.metadata()["triggerctl_plane"]
        names = list(file.keys())
    assert len(names) == 14
    for told in ('"seed":1', '"r":4', '"positive_proxy":"proxy, 3 epochs"', '"combination":"difference"'):
        assert told in about


def test_a_plane_that_is_to_be_loaded_is_loaded_from_its_path(
    plane: Path, make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIGGERCTL_CACHE", str(tmp_path / "another cache"))
    options = {"steering_vector_path": str(plane), "load_steering_vector": True, "steering_alpha": 0.1}
    assert phases_of(steering(make_experiment, "user", **options)) == ["main"]


def test_a_plane_to_be_loaded_that_is_not_there_is_computed_with_a_warning(
    make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    path = tmp_path / "nowhere.safetensors"
    folder = steering(make_experiment, "user", steering_vector_path=str(path), load_steering_vector=True)
    ours = read_results(run(folder)).ours
    assert ours is not None
    assert any(str(path) in warning and "computed" in warning for warning in ours.warnings)
    assert not path.exists(), "it lies outside of the experiment"


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "seed": ({"seed": 2}, {}, "seed: 1 there, 2 here"),
    "rank": ({}, {"r": 8}, "r: 4 there, 8 here"),
    "data of a side": ({}, {"negative_proxy": None}, "negative_proxy: proxy_neg, 3 epochs there, none here"),
    "length": ({}, {"proxy_epochs": 2}, "proxy, 3 epochs there, proxy, 2 epochs here"),
    "combination": ({}, {"add_proxy_gradients": True}, "combination: difference there, sum here"),
    "learning rate": ({}, {"learning_rate": 0.1}, "learning_rate: 0.003 there, 0.1 here"),
    "triggers": ({"outcome_triggers": ["Joy"]}, {}, "outcome_triggers"),
}


@pytest.mark.parametrize("load", [True, False], ids=["to load", "to write there"])
@pytest.mark.parametrize("kind", OTHERS)
def test_a_plane_of_another_run_is_refused_with_the_difference_named(
    kind: str, load: bool, plane: Path, make_experiment: MakeExperiment
) -> None:
    """Neither used nor written over, and said before anything is trained."""
    top, finetune, said = OTHERS[kind]
    values: dict[str, Any] = {
        "epochs": 1,
        "per_device_train_batch_size": 8,
        "max_to_eval": 6,
        "learning_rate": 3e-3,
    }
    values |= {"positive_proxy": "proxy", "negative_proxy": "proxy_neg", "proxy_epochs": 3, **finetune}
    values |= {"steering_vector_path": str(plane), "load_steering_vector": load}
    folder = make_experiment("user", proxy_strategy="steering_weights", finetune=values, **top)
    content = plane.read_bytes()
    for refuse in (lambda: run(folder), lambda: describe(planned(folder), device="cpu")):
        with pytest.raises(InputError) as caught:
            refuse()
        assert said in str(caught.value)
        assert str(plane) in str(caught.value)
    assert plane.read_bytes() == content
    assert not (folder / "results").exists()


def test_a_plane_of_another_model_is_refused(
    plane: Path, tiny_model: Path, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    other = AutoModelForCausalLM.from_pretrained(tiny_model)
    for weight in other.parameters():
        weight.data += 0.01
    other.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "other")
    options = {"steering_vector_path": str(plane), "load_steering_vector": True}
    folder = steering(make_experiment, "user", model=str(tmp_path / "other"), **options)
    with pytest.raises(InputError, match="model: files:"):
        run(folder)


def test_a_file_that_is_no_plane_is_refused(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    path = tmp_path / "plane.safetensors"
    path.write_bytes(b"not a plane")
    folder = steering(make_experiment, "user", steering_vector_path=str(path), load_steering_vector=True)
    with pytest.raises(InputError, match="no alignment plane"):
        run(folder)
    assert path.read_bytes() == b"not a plane"


def legacy(plane: Path) -> dict[str, torch.Tensor]:
    """A plane as the study kept it: tensors by peft's own names, in a pickle."""
    with safe_open(plane, framework="pt") as file:
        return {f"base_model.model.{name}": file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_a_plane_of_the_study_is_read_with_a_warning_and_its_content_names_the_run(
    plane: Path, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    path = tmp_path / "plane.pt"
    torch.save(legacy(plane), path)
    options = {"steering_vector_path": str(path), "load_steering_vector": True}
    folder = steering(make_experiment, "user", **options)
    first = planned(folder).hash
    results = run(folder)
    ours = read_results(results).ours
    assert ours is not None
    assert any("origin" in warning for warning in ours.warnings)
    maker = next(plane.parents[1].glob("results/*/adapter/adapter_model.safetensors"))
    assert (results / "adapter" / "adapter_model.safetensors").read_bytes() == maker.read_bytes()
    torch.save({name: tensor * 2 for name, tensor in legacy(plane).items()}, path)
    assert planned(folder).hash != first


def test_a_plane_of_the_study_with_other_tensors_is_refused(
    plane: Path, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    path = tmp_path / "plane.pt"
    tensors = legacy(plane)
    name = next(iter(tensors))
    torch.save({**tensors, name: tensors[name][:1]}, path)
    options = {"steering_vector_path": str(path), "load_steering_vector": True}
    with pytest.raises(InputError, match="shape"):
        run(steering(make_experiment, "shape", **options))
    del tensors[name]
    torch.save(tensors, path)
    with pytest.raises(InputError, match="it lacks"):
        run(steering(make_experiment, "missing", **options))


class _Code:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "ran"))


def test_a_pickle_with_code_in_it_is_refused_and_not_run(
    make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    path = tmp_path / "plane.pt"
    torch.save({"weight": _Code(tmp_path / "ran.txt")}, path)
    options = {"steering_vector_path": str(path), "load_steering_vector": True}
    with pytest.raises(InputError, match="no alignment plane"):
        run(steering(make_experiment, "user", **options))
    assert not (tmp_path / "ran.txt").exists()


def test_nothing_is_kept_where_saving_is_off(make_experiment: MakeExperiment) -> None:
    options = {"save_steering_vector": False}
    both = ["positive_proxy", "negative_proxy", "main"]
    assert phases_of(steering(make_experiment, "first", **options)) == both
    assert phases_of(steering(make_experiment, "second", **options)) == both
    assert not (cache_root() / "planes").exists()


def _run_until_awaited(folder: Path, cache: Path) -> None:
    """In a process whose environment is an earlier test's: stands still amid the plane until it is told that
    another run waits, a minute at most."""
    os.environ["TRIGGERCTL_CACHE"] = str(cache)

    def listener(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase == "negative_proxy":
            (folder / "computing").touch()
            until = time.monotonic() + 60
            while not (folder / "awaited").exists() and time.monotonic() < until:
                time.sleep(0.05)

    run(folder, listener=listener)


def test_two_runs_at_once_compute_their_plane_once(make_experiment: MakeExperiment) -> None:
    """The second waits, and says so, until the first has found the plane."""
    first, second = (steering(make_experiment, name) for name in ("first", "second"))
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["triggerctl.training.run"])
    process = forks.Process(target=_run_until_awaited, args=(first, cache_root()))
    process.start()
    while not (first / "computing").exists():
        assert process.is_alive()
        time.sleep(0.05)
    heard: list[Event] = []

    def listener(event: Event) -> None:
        heard.append(event)
        if isinstance(event, Noted) and "waiting for it" in event.message:
            (first / "awaited").touch()

    run(second, listener=listener)
    process.join(60)
    assert process.exitcode == 0
    assert [event.phase for event in heard if isinstance(event, PhaseStarted)] == ["main"]
    assert (first / "awaited").exists()


def test_a_cache_that_cannot_be_written_costs_the_sharing_and_not_the_run(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("TRIGGERCTL_CACHE", str(tmp_path / "file" / "cache"))
    assert phases_of(steering(make_experiment, "alone"))[-1] == "main"


def test_a_run_that_waits_for_a_plane_can_be_stopped(make_experiment: MakeExperiment) -> None:
    run(steering(make_experiment, "first"))
    [found] = (cache_root() / "planes").glob("*.safetensors")
    found.unlink()
    folder, stop = steering(make_experiment, "second"), threading.Event()

    def listener(event: Event) -> None:
        if isinstance(event, Noted):
            stop.set()

    with (
        claim(found.parent, name=f".{found.stem}.lock"),
        pytest.raises(InterruptedRunError, match="another run"),
    ):
        run(folder, listener=listener, stop=stop)
    assert phases_of(folder) == ["positive_proxy", "negative_proxy", "main"]


def test_an_empty_plane_of_the_studys_is_an_error_of_ours(tmp_path: Path) -> None:
    """torch raises one without a word."""
    path = tmp_path / "plane.pt"
    path.touch()
    with pytest.raises(InputError, match="EOFError"):
        read_legacy_plane(path)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_plane_is_not_written_in_the_studys_format_and_that_is_said(
    make_experiment: MakeExperiment, is_there: bool
) -> None:
    folder = steering(make_experiment, "user", steering_vector_path="plane.pt", epochs=0)
    if is_there:
        (folder / "plane.pt").write_bytes(b"another's")
    results = read_results(run(folder))
    assert results.ours is not None
    assert any("nothing is written to" in text for text in results.ours.warnings)
    assert (folder / "plane.pt").exists() is is_there
