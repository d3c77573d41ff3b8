"""Every strategy, stopped in each of its phases, ends as if nothing had happened, bit for bit.

pytest tests/training/test_resume_every_strategy.py"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine import left_behind, run, state
from every_strategy import OPTIONS, experiment_for

from triggerctl.errors import InterruptedRunError
from triggerctl.experiment.stored_results import read_results
from triggerctl.training.events import Evaluated, Event, Noted, PhaseStarted, Stepped

MakeExperiment = Callable[..., Path]

PHASES = {
    **dict.fromkeys(OPTIONS, ("main",)),
    "grad_project_precomputed_proxy_grad": ("positive_proxy", "main"),
    "orth_penalty": ("positive_proxy", "negative_proxy", "main"),
    "directional_penalty": ("positive_proxy", "negative_proxy", "main"),
    "steering_weights": ("positive_proxy", "negative_proxy", "main"),
    "steering_weights_add_alignment_plane": ("positive_proxy", "negative_proxy", "main"),
    "safe_lora": ("positive_proxy", "main"),
    "o_lora": ("positive_proxy", "main"),
}
"""Strategy → the phases it is stopped in."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {"lora_dropout": 0.2}) for name in OPTIONS},
    "steering, all weights": ("steering_weights", {"is_peft": False, "learning_rate": 1e-3}),
    "steering by weights, one side": (
        "steering_weights",
        {"calc_alignment_plane_using_fully_finetuned_weights": True, "negative_proxy": None},
    ),
    "representation, all weights": ("representation_constraint", {"is_peft": False, "learning_rate": 1e-3}),
    "dpo, all weights": ("dpo", {"is_peft": False, "learning_rate": 1e-3}),
    "safe_lora, several thresholds": ("safe_lora", {"safe_lora_sweep_thresholds": [0.2, 0.6]}),
}


def stop_in(folder: Path, phase: str, step: int) -> None:
    """Run until the update `step` of a phase is done, and ask it to stop."""
    stop, here = threading.Event(), [""]

    def listener(event: Event) -> None:
        if isinstance(event, PhaseStarted):
            here[0] = event.phase
        if isinstance(event, Stepped) and (event.phase, event.step) == (phase, step):
            stop.set()

    with pytest.raises(InterruptedRunError):
        run(folder, listener=listener, stop=stop)
    assert here[0] == phase
    assert state(folder)["status"] == "interrupted"


def assert_same(found: dict[str, object], expected: dict[str, object]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == expected[name], name


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_in_every_phase_it_ends_as_if_undisturbed(
    variant: str, make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy, options = VARIANTS[variant]
    undisturbed = left_behind(run(experiment_for(strategy, make_experiment, name="undisturbed", **options)))
    monkeypatch.setenv("TRIGGERCTL_CACHE", str(tmp_path / "another cache"))
    folder = experiment_for(strategy, make_experiment, name="stopped", **options)
    phases = [p for p in PHASES[strategy] if p != "negative_proxy" or options.get("negative_proxy", p)]
    for phase in phases:
        stop_in(folder, phase, 2)
    assert_same(left_behind(run(folder)), undisturbed)
    assert state(folder)["status"] == "done"


def test_stopped_at_the_border_of_two_phases_it_ends_as_if_undisturbed(
    make_experiment: MakeExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last update of a phase is done, the next phase has not begun."""
    undisturbed = left_behind(run(experiment_for("o_lora", make_experiment, name="undisturbed")))
    monkeypatch.setenv("TRIGGERCTL_CACHE", str(tmp_path / "another cache"))
    folder = experiment_for("o_lora", make_experiment, name="stopped")
    stop_in(folder, "positive_proxy", 6)
    assert_same(left_behind(run(folder)), undisturbed)


def test_stopped_while_an_ending_is_evaluated_it_ends_as_if_undisturbed(
    make_experiment: MakeExperiment,
) -> None:
    """The weights were changed already: a checkpoint of them would be changed once more."""
    options = {"safe_lora_sweep_thresholds": [0.2, 0.6]}
    undisturbed = left_behind(
        run(experiment_for("safe_lora", make_experiment, name="undisturbed", **options))
    )
    folder = experiment_for("safe_lora", make_experiment, name="stopped", **options)
    stop = threading.Event()

    def listener(event: Event) -> None:
        if isinstance(event, Evaluated) and event.evaluation.phase == "variant":
            stop.set()

    with pytest.raises(InterruptedRunError):
        run(folder, listener=listener, stop=stop)
    assert_same(left_behind(run(folder)), undisturbed)


def test_a_shared_plane_gives_the_very_run_that_computing_it_gives(make_experiment: MakeExperiment) -> None:
    """Two runs that need the same plane compute it once, whatever they do with it; dropout is on, so that a
    phase left out must not move the chance of the next."""
    alone = run(experiment_for("steering_weights", make_experiment, name="alone", lora_dropout=0.2))
    heard: list[Event] = []
    folder = experiment_for("steering_weights", make_experiment, name="again", lora_dropout=0.2)
    shared = run(folder, listener=heard.append)
    assert [event.phase for event in heard if isinstance(event, PhaseStarted)] == ["main"]
    said = [event.message for event in heard if isinstance(event, Noted)]
    assert any(message.startswith("alignment plane taken from") for message in said)
    assert "taken from" in (folder / "run.log").read_text(encoding="utf-8")
    one, two = read_results(alone), read_results(shared)
    assert one.proxy_train_losses == two.proxy_train_losses
    assert one.ours is not None
    assert two.ours is not None
    assert one.ours.evaluations == two.ours.evaluations
    assert one.ours.cache_entries == two.ours.cache_entries
    adapter = "adapter/adapter_model.safetensors"
    assert (alone / adapter).read_bytes() == (shared / adapter).read_bytes()

    other = experiment_for("orth_penalty", make_experiment, lora_dropout=0.2)
    run(other, listener=heard.append)
    assert [event.phase for event in heard if isinstance(event, PhaseStarted)] == ["main", "main"]
