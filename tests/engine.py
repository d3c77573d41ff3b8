"""Whole runs as a command would start them: plan, execute, interrupt, kill, and compare what they left."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from triggerctl.config.load import load_config
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.results import TriggerctlResults
from triggerctl.training.events import Event
from triggerctl.training.plan import RunPlan, plan_run

if TYPE_CHECKING:
    from triggerctl.model.keeper import ModelKeeper

VOLATILE = ("timings", "throughput", "memory")
"""What of a result may differ from run to run."""


def planned(folder: Path, *, fresh: bool = False) -> RunPlan:
    place = ExperimentFolder(folder)
    return plan_run(place, load_config(place.config), fresh=fresh)


def no_figures(results: Path, summary: TriggerctlResults, losses: list[float]) -> None:
    return None


def run(
    folder: Path,
    *,
    listener: Callable[[Event], None] = lambda event: None,
    stop: threading.Event | None = None,
    fresh: bool = False,
    threads: int | None = 1,
    processes: int = 1,
    figures: Callable[[Path, TriggerctlResults, list[float]], str | None] = no_figures,
    cache: bool = True,
    keeper: ModelKeeper | None = None,
) -> Path:
    """The engine's own entry, with one thread; returns the results folder."""
    from triggerctl.training.run import execute

    plan = planned(folder, fresh=fresh)
    return execute(
        plan,
        listener=listener,
        stop=stop or threading.Event(),
        figures=figures,
        device="cpu",
        threads=threads,
        cache=cache,
        keeper=keeper,
        processes=processes,
    )


def run_and_die(folder: Path, at: str) -> None:
    """Run in a process that is killed at a moment: `step:3`, `evaluating:2` (in the midst of the second
    evaluation), `writing:2` (half-way through the second checkpoint), `begun` (its results folder is made,
    and nothing in it), `figures`, or `finished` (results.json stands, nothing after it is done). A checkpoint
    is written after every update."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["triggerctl.training.run"])
    process = forks.Process(target=_run_to_death, args=(folder, at))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, f"exit code {process.exitcode}, killed at {at}"


def _run_to_death(folder: Path, at: str) -> None:
    import torch

    from triggerctl.training import checkpoints, outcome
    from triggerctl.training.events import Evaluated, Progress, Stepped

    checkpoints.CHECKPOINT_SECONDS = -1.0
    kind, _, number = at.partition(":")
    count = int(number or 1)
    evaluations, writes = 0, 0
    whole_save = torch.save

    def listener(event: Event) -> None:
        nonlocal evaluations
        if isinstance(event, Evaluated):
            evaluations += 1
        if kind == "step" and isinstance(event, Stepped) and event.step == count:
            _die()
        inside = isinstance(event, Progress) and event.stage == "evaluate"
        if kind == "evaluating" and inside and evaluations == count - 1:
            _die()

    def cut_off(content: object, file: BinaryIO) -> None:
        nonlocal writes
        writes += 1
        if writes < count:
            whole_save(content, file)
            return
        file.write(b"half a file")
        file.flush()
        _die()

    def figures(results: Path, summary: TriggerctlResults, losses: list[float]) -> None:
        if kind == "figures":
            _die()

    if kind == "writing":
        torch.save = cut_off  # type: ignore[assignment]
    if kind == "begun":
        new_results = ExperimentFolder.new_results

        def begun(place: ExperimentFolder, *given: Any, **named: Any) -> None:
            new_results(place, *given, **named)
            _die()

        ExperimentFolder.new_results = begun  # type: ignore[method-assign, assignment]
    if kind == "finished":
        outcome.drop_checkpoints = lambda plan, results: _die()  # type: ignore[attr-defined]
    run(folder, listener=listener, figures=figures)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def left_behind(results: Path) -> dict[str, object]:
    """Everything of a finished run that must be the same however often it was disturbed."""
    document: dict[str, Any] = json.loads((results / "results.json").read_text(encoding="utf-8"))
    del document["timestamp"], document["experiment_config"]["timestamp"]
    for name in VOLATILE:
        del document["triggerctl"][name]
    found: dict[str, object] = {"results.json": document}
    for name in ("metrics.jsonl", "verdicts.jsonl", "prompts.jsonl", "examples.jsonl"):
        found[name] = (results / name).read_text(encoding="utf-8")
    for path in sorted(results.glob("*/*.safetensors")):
        found[f"{path.parent.name}/{path.name}"] = path.read_bytes()
    return found


def leavings(folder: Path) -> list[str]:
    """Everything below the folder that only a run under way may have there, and files that are no whole
    JSON."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder.parent).as_posix()
        hidden = path.name.startswith(".")
        if hidden or path.name == "checkpoints" or path.suffix in (".lock", ".tmp", ".part"):
            found.append(f"left: {name}")
        elif path.parent.name == "results" and path.is_dir() and not (path / "results.json").is_file():
            found.append(f"half results: {name} with {sorted(inner.name for inner in path.iterdir())}")
        elif path.suffix in (".json", ".jsonl"):
            text = path.read_text(encoding="utf-8")
            try:
                for part in text.splitlines() if path.suffix == ".jsonl" else [text]:
                    json.loads(part)
            except ValueError as error:
                found.append(f"torn: {name}: {error}")
    return found


def state(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return content
