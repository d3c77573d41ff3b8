"""A run that was stopped or killed, at whatever moment, ends as if nothing had happened, bit for bit.

pytest tests/training/test_resume.py"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine import leavings, left_behind, planned, run, run_and_die, state
from safetensors.torch import save_file

from triggerctl.errors import InputError, InterruptedRunError, RunError
from triggerctl.experiment.state import run_status
from triggerctl.experiment.stored_results import read_results
from triggerctl.training.decision import Action, decide
from triggerctl.training.events import Event, Stepped
from triggerctl.training.settle import settle_skipped

MakeExperiment = Callable[..., Path]

VARIANTS: dict[str, dict[str, Any]] = {
    "naive, dropout": {"strategy": "naive", "lora_dropout": 0.2},
    "kl, dropout": {"strategy": "kl", "lora_dropout": 0.2},
    "kl, all weights": {"strategy": "kl", "is_peft": False, "save_model_locally": True},
    "max_steps in mid-epoch": {"strategy": "naive", "lora_dropout": 0.2, "max_steps": 11},
}
UPDATES_PER_EPOCH = {"naive": 7, "kl": 4}
_UNDISTURBED: dict[str, dict[str, object]] = {}


@pytest.fixture
def make(make_experiment: MakeExperiment) -> Callable[[str, str], Path]:
    def made(variant: str, name: str) -> Path:
        values = dict(VARIANTS[variant])
        strategy = values.pop("strategy")
        finetune = {"per_device_train_batch_size": 8, "max_to_eval": 8, "learning_rate": 3e-3, **values}
        return make_experiment(name, experiment_name="one", proxy_strategy=strategy, finetune=finetune)

    return made


@pytest.fixture
def undisturbed(make: Callable[[str, str], Path]) -> Callable[[str], dict[str, object]]:
    """What a run of that variant leaves when nothing disturbs it; each is trained once."""

    def left(variant: str) -> dict[str, object]:
        if variant not in _UNDISTURBED:
            _UNDISTURBED[variant] = left_behind(run(make(variant, "undisturbed")))
        return _UNDISTURBED[variant]

    return left


def stop_at(folder: Path, step: int) -> None:
    """Run until the update `step` is done, and ask it to stop; step 0: ask before it begins."""
    stop = threading.Event()

    def listener(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == step:
            stop.set()

    if step == 0:
        stop.set()
    with pytest.raises(InterruptedRunError):
        run(folder, listener=listener, stop=stop)
    assert state(folder)["status"] == "interrupted"
    assert state(folder)["step"] == step


def assert_same(found: dict[str, object], expected: dict[str, object]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == expected[name], name


def assert_clean(folder: Path, results: Path) -> None:
    assert state(folder)["status"] == "done"
    assert not (folder / "checkpoints").exists()
    assert not (folder / ".lock").exists()
    assert [path.name for path in (folder / "results").iterdir()] == [results.name]
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_at_several_updates_it_ends_as_if_undisturbed(
    variant: str, make: Callable[[str, str], Path], undisturbed: Callable[[str], dict[str, object]]
) -> None:
    """Before the first evaluation, in mid-epoch, at an epoch's end (while it is evaluated), and again."""
    folder = make(variant, "stopped")
    epoch = UPDATES_PER_EPOCH[str(VARIANTS[variant]["strategy"])]
    for step in (0, 2, epoch, epoch + 2):
        stop_at(folder, step)
        assert planned(folder).action is Action.RESUME
    results = run(folder)
    assert_same(left_behind(results), undisturbed(variant))
    assert_clean(folder, results)


def test_stopped_at_its_very_last_update_it_still_ends_as_if_undisturbed(
    make: Callable[[str, str], Path], undisturbed: Callable[[str], dict[str, object]]
) -> None:
    folder = make("naive, dropout", "stopped")
    stop_at(folder, 14)
    assert_same(left_behind(run(folder)), undisturbed("naive, dropout"))


def test_killed_again_and_again_it_ends_as_if_undisturbed(
    make: Callable[[str, str], Path], undisturbed: Callable[[str], dict[str, object]]
) -> None:
    """Before its first checkpoint, in mid-epoch, half-way through a checkpoint, in an evaluation, and while
    it draws its figures."""
    folder = make("kl, dropout", "killed")
    for moment in ("writing:1", "step:3", "writing:2", "evaluating:1", "step:6", "figures"):
        run_and_die(folder, moment)
        assert state(folder)["status"] == "running"
        assert not list(folder.glob("results/*/results.json"))
    results = run(folder)
    assert_same(left_behind(results), undisturbed("kl, dropout"))
    assert_clean(folder, results)


@pytest.mark.parametrize("variant", ["kl, dropout", "max_steps in mid-epoch", "kl, all weights"])
def test_killed_between_the_last_update_and_its_evaluation_it_loses_nothing(
    variant: str, make: Callable[[str, str], Path], undisturbed: Callable[[str], dict[str, object]]
) -> None:
    """The checkpoint of the last update stands, the epoch is not closed yet."""
    folder = make(variant, "killed")
    run_and_die(folder, "evaluating:3")
    assert_same(left_behind(run(folder)), undisturbed(variant))


def test_killed_when_it_had_just_begun_it_writes_on_in_the_same_folder(
    make: Callable[[str, str], Path], undisturbed: Callable[[str], dict[str, object]]
) -> None:
    folder = make("naive, dropout", "killed")
    run_and_die(folder, "begun")
    results = run(folder)
    assert_same(left_behind(results), undisturbed("naive, dropout"))
    assert_clean(folder, results)


def test_what_a_kill_left_of_a_finished_run_is_cleared_when_it_is_skipped(
    make: Callable[[str, str], Path],
) -> None:
    """The state still says running, a dead process's claim stands, half of a file and an empty folder."""
    folder = make("naive, dropout", "killed")
    results = run(folder)
    before = left_behind(results)
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from triggerctl.experiment.atomic import atomic_file\n"
        "from triggerctl.experiment.claim import claim\n"
        "from triggerctl.experiment.state import read_state, write_state\n"
        "folder = Path(sys.argv[1])\n"
        "state = read_state(folder / 'state.json')\n"
        "with claim(folder), atomic_file(folder / 'state.json') as file:\n"
        "    file.touch()\n"
        "    (folder / 'checkpoints').mkdir()\n"
        "    write_state(folder / 'state.json', state.model_copy(update={'status': 'running'}))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
    assert (folder / ".lock").exists()
    assert state(folder)["status"] == "running"
    settle_skipped(planned(folder))
    assert_clean(folder, results)
    assert leavings(folder) == []
    assert left_behind(results) == before


def test_killed_right_after_results_json_it_is_done_and_the_next_call_tidies_up(
    make: Callable[[str, str], Path], undisturbed: Callable[[str], dict[str, object]]
) -> None:
    folder = make("naive, dropout", "killed")
    run_and_die(folder, "finished")
    assert planned(folder).action is Action.SKIP
    assert run_status(folder)[1] == "done"
    results = run(folder)
    assert_same(left_behind(results), undisturbed("naive, dropout"))
    assert_clean(folder, results)


def test_a_resumed_run_takes_up_the_thread_count_it_began_with(
    make: Callable[[str, str], Path], undisturbed: Callable[[str], dict[str, object]]
) -> None:
    folder = make("naive, dropout", "threads")
    stop_at(folder, 3)
    results = run(folder, threads=2)
    assert_same(left_behind(results), undisturbed("naive, dropout"))


def test_fresh_begins_anew_and_leaves_no_trace_of_what_was_interrupted(
    make: Callable[[str, str], Path], undisturbed: Callable[[str], dict[str, object]]
) -> None:
    """Checkpoints of the earlier attempt would otherwise outlive, and drive out, those of the new one."""
    folder = make("naive, dropout", "fresh")
    stop_at(folder, 6)
    stop, first = threading.Event(), []

    def listener(event: Event) -> None:
        if isinstance(event, Stepped):
            first.append(event.step)
            stop.set()

    with pytest.raises(InterruptedRunError):
        run(folder, fresh=True, listener=listener, stop=stop)
    assert first == [1]
    assert sorted(path.name for path in folder.glob("checkpoints/*/*")) == [
        "step-00-00000000-1",
        "step-00-00000001-0",
    ]
    assert len(list((folder / "results").iterdir())) == 2
    begun = state(folder)["results"]
    results = run(folder)
    assert results.name == begun
    assert_same(left_behind(results), undisturbed("naive, dropout"))


def test_begun_anew_beside_finished_results_it_goes_on_all_the_same(
    make: Callable[[str, str], Path], undisturbed: Callable[[str], dict[str, object]]
) -> None:
    folder = make("naive, dropout", "beside")
    first = run(folder)
    stop = threading.Event()

    def listener(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 3:
            stop.set()

    with pytest.raises(InterruptedRunError):
        run(folder, fresh=True, listener=listener, stop=stop)
    begun = state(folder)["results"]
    assert begun != first.name
    plan = planned(folder)
    assert plan.action is Action.RESUME
    assert f"beside {first.name}" in plan.reason
    action, _, finished = decide(plan.folder, plan.config, plan.hash, dont_overwrite=True)
    assert (action, finished) == (Action.SKIP, first)
    told = (folder / "state.json").read_bytes()
    (folder / "state.json").write_text("{", encoding="utf-8")
    assert planned(folder).action is Action.SKIP
    (folder / "state.json").write_bytes(told)
    steps: list[int] = []

    def note(event: Event) -> None:
        if isinstance(event, Stepped):
            steps.append(event.step)

    results = run(folder, listener=note)
    assert steps[0] == 4
    assert results.name == begun
    assert_same(left_behind(results), undisturbed("naive, dropout"))
    assert state(folder)["status"] == "done"
    assert planned(folder).action is Action.SKIP
    assert not (folder / "checkpoints").exists()


def test_another_configurations_checkpoints_are_left_alone(make: Callable[[str, str], Path]) -> None:
    folder = make("naive, dropout", "two")
    stop_at(folder, 2)
    [other] = (folder / "checkpoints").iterdir()
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"epochs": 2', '"epochs": 1'), encoding="utf-8")
    assert planned(folder).action is Action.RUN
    run(folder)
    assert list((folder / "checkpoints").iterdir()) == [other]
    assert list(other.iterdir())


def test_a_checkpoint_that_does_not_fit_fails_the_run_and_says_so(make: Callable[[str, str], Path]) -> None:
    folder = make("naive, dropout", "foreign")
    stop_at(folder, 2)
    for weights in folder.glob("checkpoints/*/*/weights.safetensors"):
        save_file({"another.weight": torch.zeros(2)}, weights)
    with pytest.raises(RunError, match="does not fit"):
        run(folder)
    assert state(folder)["status"] == "failed"
    assert "does not fit" in state(folder)["error"]
    assert not (folder / ".lock").exists()


def test_results_json_comes_last(make: Callable[[str, str], Path]) -> None:
    """Where it stands, all the rest does."""
    folder = make("kl, all weights", "last")
    seen: list[list[str]] = []

    def figures(results: Path, summary: object, losses: list[float]) -> None:
        seen.append(sorted(path.name for path in results.iterdir()))

    results = run(folder, figures=figures)
    assert seen == [sorted({path.name for path in results.iterdir()} - {"results.json"})]
    written = (results / "results.json").stat().st_mtime_ns
    others = [path for path in results.rglob("*") if path.is_file() and path.name != "results.json"]
    assert all(path.stat().st_mtime_ns <= written for path in others)


def test_checkpoints_stay_when_asked_for(make_experiment: MakeExperiment) -> None:
    folder = make_experiment(finetune={"save_checkpoints_locally": True, "max_to_eval": 4, "epochs": 3})
    results = run(folder)
    kept = sorted(path.name for path in (results / "checkpoints").iterdir())
    assert len(kept) == 3
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize(
    ("key", "value"), [("device", "cuda"), ("optimiser", "adamw_8bit"), ("dtype", "bfloat16")]
)
def test_a_run_goes_on_in_the_way_it_began_or_not_at_all(
    make: Callable[[str, str], Path], undisturbed: Callable[[str], dict[str, object]], key: str, value: str
) -> None:
    folder = make("naive, dropout", "elsewhere")
    stop_at(folder, 3)
    newest = max(folder.glob("checkpoints/*/*/record.json"))
    record = newest.read_text()
    newest.write_text(json.dumps({**json.loads(record), key: value}))
    with pytest.raises(InputError, match=value) as refused:
        run(folder)
    assert "--fresh" in str(refused.value)
    newest.write_text(record)
    assert_same(left_behind(run(folder)), undisturbed("naive, dropout"))


def test_a_resumed_run_keeps_to_the_gradient_checkpointing_it_began_with(
    make: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever memory there is by then: it decides which threads sum what."""
    folder = make("naive, dropout", "memory")
    with monkeypatch.context() as crowded:
        crowded.setattr("triggerctl.model.memory.capacity_bytes", lambda device: 1)
        stop_at(folder, 3)
    ours = read_results(run(folder)).ours
    assert ours is not None
    assert ours.resolved["gradient_checkpointing"] is True
