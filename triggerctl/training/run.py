"""One run from its plan to its results: the engine's one entry. Whatever moment it dies at, the same call
goes on."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from triggerctl.errors import InterruptedRunError, RunError, TriggerctlError
from triggerctl.experiment.atomic import make_folder
from triggerctl.experiment.claim import Claim, claim
from triggerctl.experiment.results import Evaluation
from triggerctl.experiment.state import RunState, read_state
from triggerctl.model.device import default_threads, resolve_device
from triggerctl.strategies.alignment_plane import AlignmentPlaneStrategy
from triggerctl.strategies.base import MAIN, Phase
from triggerctl.training.checkpoints import (
    Checkpoint,
    newest_checkpoint,
    position_of,
    restore,
    write_checkpoint,
)
from triggerctl.training.events import (
    Checkpointed,
    Evaluated,
    Event,
    Failed,
    Finished,
    Interrupted,
    Listener,
    Noted,
    Progress,
    Started,
    Warned,
)
from triggerctl.training.generation import greedy_answers
from triggerctl.training.loop import Position, TrainingLoop
from triggerctl.training.optimiser import choose_optimiser
from triggerctl.training.outcome import Figures, leave_results, summarise
from triggerctl.training.plan import Action, RunPlan, decide
from triggerctl.training.planes import PlaneStore
from triggerctl.training.recorder import Recorder, run_log
from triggerctl.training.settle import settle
from triggerctl.training.setup import Prepared, prepare
from triggerctl.training.trackers import Tracker, check_tracker

CHECKPOINT_SECONDS = 120.0
"""Between checkpoints in the middle of an epoch; a fast epoch needs none."""

VARIANT = "variant"
"""The phase of an evaluation that is beside the run's result: another ending of the same training."""

SAMPLES_PER_SET = 3
SAMPLE_TOKENS = 48


@dataclass(slots=True)
class Progressed:
    """What a run has produced so far, kept in its checkpoints."""

    evaluations: list[Evaluation]
    warnings: list[str]
    timings: dict[str, float]
    evaluated_tokens: int = 0

    def document(self) -> dict[str, Any]:
        return {
            "evaluations": [evaluation.model_dump(mode="json") for evaluation in self.evaluations],
            "warnings": self.warnings,
            "timings": self.timings,
            "evaluated_tokens": self.evaluated_tokens,
        }

    @classmethod
    def of(cls, checkpoint: Checkpoint | None) -> Progressed:
        if checkpoint is None:
            return cls([], [], {"training": 0.0, "evaluation": 0.0})
        stored = checkpoint.record["progressed"]
        evaluations = [Evaluation.model_validate(found) for found in stored["evaluations"]]
        return cls(evaluations, stored["warnings"], stored["timings"], stored["evaluated_tokens"])


def execute(
    plan: RunPlan,
    *,
    listener: Listener,
    stop: threading.Event,
    figures: Figures,
    device: str = "auto",
    threads: int | None = None,
) -> Path:
    """Train, evaluate and leave results, `figures` drawn among them; returns the results folder.

    `stop`, once set, ends the run at its next update with a checkpoint. A run that another process finished
    in the meantime is not trained again. Raises InputError before anything is written where something can't
    be used, BusyError where another process works here, RunError where the run fails (state `failed`),
    InterruptedRunError once it has stopped (state `interrupted`)."""
    make_folder(plan.folder.path)
    with claim(plan.folder.path) as held:
        action, _, finished = decide(plan.folder, plan.config, plan.hash, fresh=plan.fresh)
        if action is Action.SKIP and finished is not None:
            settle(plan, finished)
            return finished
        own = plan.folder.checkpoint(plan.hash)
        checkpoint = None if plan.fresh else newest_checkpoint(own)
        chosen = resolve_device(device)
        used_threads = _set_threads(checkpoint, threads)
        check_tracker(plan.config.finetune_config.report_to)
        prepared = prepare(plan, chosen, listener)
        if plan.fresh:
            shutil.rmtree(own, ignore_errors=True)
        with run_log(plan.folder.log):
            run = _Run(plan, prepared, checkpoint, listener, stop, held, used_threads)
            return run.to_the_end(figures)


def _set_threads(checkpoint: Checkpoint | None, asked: int | None) -> int:
    """A resumed run takes its thread count up again: sums in another order would be other numbers."""
    threads = int(checkpoint.record["threads"]) if checkpoint else asked or default_threads()
    torch.set_num_threads(threads)
    return threads


class _Run:
    """The state of one execution; implements the loop's `Hooks`."""

    def __init__(
        self,
        plan: RunPlan,
        prepared: Prepared,
        checkpoint: Checkpoint | None,
        listener: Listener,
        stop: threading.Event,
        held: Claim,
        threads: int,
    ) -> None:
        self._plan = plan
        self._prepared = prepared
        self._stop = stop
        self._claim = held
        self._threads = threads
        self._began = time.perf_counter()
        self._checkpointed = time.monotonic()
        self._checkpoints = plan.folder.checkpoint(plan.hash)
        self._resumed = checkpoint is not None
        self._listeners: list[Listener] = [listener]
        self.results = self._results_folder(checkpoint)
        self.progressed = Progressed.of(checkpoint)
        self.recorder = Recorder(
            plan.folder,
            self.results,
            RunState(
                status="running",
                hash=plan.hash,
                strategy=plan.strategy.name,
                seed=plan.config.seed,
                results=self.results.name,
                started=datetime.now(UTC),
            ),
            sizes=checkpoint.record["sizes"] if checkpoint else {},
            every=plan.config.finetune_config.logging_steps,
        )
        self._listeners.insert(0, self.recorder)
        tracker = plan.config.finetune_config.report_to
        if tracker != "none":
            self._listeners.append(Tracker(plan.config, tracker, self.results))
        self._planes: PlaneStore | None = None
        self._optimiser, note = choose_optimiser(plan.config.finetune_config.optim, prepared.device)
        self.loop = TrainingLoop(
            prepared.model,
            prepared.strategy,
            prepared.phases,
            pad_id=prepared.encoder.pad_id,
            optimiser_name=self._optimiser,
            position=position_of(checkpoint) if checkpoint else Position(),
            listener=self.say,
            should_stop=stop.is_set,
        )
        if checkpoint is not None:
            restore(checkpoint, self.loop)
        else:
            told = (*plan.warnings, *prepared.warnings, *([note] if note else []))
            for warning in told:
                self.warn(warning)

    # Talking
    # ------------------------------------------------------------------------------------------------------

    def say(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)

    def warn(self, message: str) -> None:
        self.progressed.warnings.append(message)
        self.say(Warned(message))

    def _counting(self, stage: str) -> Callable[[int, int], None]:
        def said(done: int, total: int) -> None:
            self.say(Progress(stage, done, total))
            if self._stop.is_set():
                raise InterruptedRunError(
                    f"stopped while evaluating at step {self.loop.position.step}",
                    mend="the same command goes on from there",
                )

        return said

    # The whole
    # ----------------------------------------------------------------------------------------------------

    def to_the_end(self, figures: Figures) -> Path:
        """Train to the end, or leave a state that says why not."""
        try:
            self._announce()
            if not self.progressed.evaluations:
                self._evaluate(MAIN, final=self._has_nothing_to_do, first=True)
                self.loop.position.evaluated = True
                self._checkpoint()
            began = time.perf_counter()
            before = self.progressed.timings["evaluation"]
            self._obtain_plane()
            self.loop.run(self)
            self._add_training_time(began, before)
            self._end()
            self._leave(figures)
            self.say(Finished(self.results, time.perf_counter() - self._began))
        except InterruptedRunError:
            self._checkpoint()
            self.say(Interrupted(self.loop.position.step))
            raise
        except TriggerctlError as error:
            self.say(Failed(str(error)))
            raise
        except torch.OutOfMemoryError as error:
            self.say(Failed(f"out of memory: {error}"))
            raise RunError(
                "out of memory",
                why=str(error).splitlines()[0],
                mend="halve per_device_train_batch_size, double gradient_accumulation_steps: same update",
            ) from error
        except Exception as error:
            self.say(Failed(f"{type(error).__name__}: {error}"))
            raise
        finally:
            if self._planes is not None:
                self._planes.release()
            self.recorder.close()
        return self.results

    def _obtain_plane(self) -> None:
        """Take up an alignment plane that another run has found, or claim its computation."""
        strategy, loop = self._prepared.strategy, self.loop
        if not isinstance(strategy, AlignmentPlaneStrategy) or strategy.plane is not None:
            return
        self._planes = PlaneStore(
            self._plan,
            strategy,
            shapes={name: weight.shape for name, weight in self._prepared.model.trainable.items()},
            environment={
                "device": self._prepared.device.type,
                "dtype": str(self._prepared.dtype).removeprefix("torch."),
                "threads": self._threads,
                "optimiser": self._optimiser,
            },
            say=lambda message: self.say(Noted(message)),
            warn=self.warn,
        )
        if loop.position.phase or loop.position.step:
            return  # resumed in the midst of the proxy phases: they go on
        found = self._planes.find() or self._planes.wait_for_others(self._stop)
        if found is not None:
            strategy.take_plane({n: t.to(self._prepared.device) for n, t in found.tensors.items()})
            loop.position.losses.update(found.losses)
            loop.skip_to(len(loop.phases) - 1)
            self.say(Noted(f"alignment plane taken from {found.place}"))

    def _end(self) -> None:
        """What the strategy does to the trained weights once training is over, each way evaluated; the last
        way stays."""
        strategy = self._prepared.strategy
        endings = strategy.endings()
        weights = {name: weight.data for name, weight in self._prepared.model.trainable.items()}
        trained = {name: weight.clone() for name, weight in weights.items()} if len(endings) > 1 else {}
        for place, ending in enumerate(endings):
            with torch.no_grad():
                for name, weight in trained.items():
                    weights[name].copy_(weight)
                note = strategy.end(ending, weights)
            final = place + 1 == len(endings)
            self._evaluate(MAIN if final else VARIANT, final=final, label=ending, note=note)
            self.say(Noted(f"{ending}: {note}"))

    def _leave(self, figures: Figures) -> None:
        self._claim.check()
        progressed = self.progressed
        summary = summarise(
            self._plan,
            self._prepared,
            progressed.evaluations,
            self.loop.position,
            warnings=progressed.warnings,
            timings=progressed.timings,
            evaluated_tokens=progressed.evaluated_tokens,
            threads=self._threads,
            cache_entries=[self._planes.cache_entry] if self._planes is not None else [],
        )
        leave_results(
            self._plan,
            self._prepared,
            self.results,
            summary,
            self.loop.position,
            figures=figures,
            say=lambda message: self.say(Warned(message)),
            threads=self._threads,
        )

    @property
    def _updates(self) -> int:
        return sum(self.loop.updates_in(i) for i in range(len(self.loop.phases)))

    @property
    def _has_nothing_to_do(self) -> bool:
        """With no updates and no ending the first evaluation is the last one too."""
        return not self._updates and not self._prepared.strategy.endings()

    def _announce(self) -> None:
        prepared, plan = self._prepared, self._plan
        self.say(
            Started(
                folder=plan.folder.path,
                results=self.results,
                strategy=plan.strategy.name,
                seed=plan.config.seed,
                hash=plan.hash,
                epochs=sum(phase.epochs for phase in self.loop.phases),
                updates=self._updates,
                parameters=prepared.shape.parameters,
                trainable=prepared.shape.trainable,
                device=str(prepared.device),
                dtype=str(prepared.dtype).removeprefix("torch."),
                threads=self._threads,
                resumed_step=self.loop.position.step if self._resumed else None,
            )
        )

    def _results_folder(self, checkpoint: Checkpoint | None) -> Path:
        """The folder this very run began to write before, else a new one."""
        folder = self._plan.folder
        begun: str | None = checkpoint.record["results"] if checkpoint else None
        if begun is None and not self._plan.fresh:
            state = read_state(folder.state)
            if state and state.status != "done" and state.hash == self._plan.hash:
                begun = state.results
        if (
            begun
            and (folder.results / begun).is_dir()
            and not (folder.results / begun / "results.json").exists()
        ):
            return folder.results / begun
        return folder.new_results(datetime.now())

    # Hooks of the loop
    # --------------------------------------------------------------------------------------------

    def updated(self) -> None:
        if time.monotonic() - self._checkpointed > CHECKPOINT_SECONDS:
            self._checkpoint()

    def epoch_ended(self, phase: Phase, *, last: bool) -> None:
        position = self.loop.position
        every = self._plan.config.finetune_config.checkpoint_frequency
        if phase.evaluated:
            ends_all = last and position.phase + 1 == len(self.loop.phases)
            final = ends_all and not self._prepared.strategy.endings()
            self._evaluate(phase.name, final=final)
        position.evaluated = True
        if last or position.epoch % every == 0:
            self._checkpoint()

    def phase_ended(self, phase: Phase) -> None:
        strategy = self._prepared.strategy
        if self._planes is None or not isinstance(strategy, AlignmentPlaneStrategy):
            return
        if phase.name in strategy.sides() and strategy.plane is not None:
            losses = self.loop.position.losses
            self._planes.keep(strategy.plane, {name: losses[name] for name in strategy.sides()})

    # Pieces
    # -------------------------------------------------------------------------------------------------------

    def _evaluate(
        self,
        phase: str,
        *,
        final: bool,
        first: bool = False,
        label: str | None = None,
        note: str | None = None,
    ) -> None:
        began = time.perf_counter()
        position = self.loop.position
        epoch = self._epoch_reached()
        found = self._prepared.evaluator.measure(
            self._prepared.model, with_twins=first or final, progress=self._counting("evaluate")
        )
        evaluation = Evaluation(
            label=label or f"epoch {epoch:g}",
            phase=phase,
            epoch=epoch,
            step=position.step,
            final=final,
            note=note,
            sets=found.sets,
        )
        self.recorder.verdicts(evaluation, found.verdicts)
        if first or final:
            self._sample(evaluation)
        self.progressed.evaluations.append(evaluation)
        self.progressed.evaluated_tokens += found.tokens
        seconds = time.perf_counter() - began
        self.progressed.timings["evaluation"] += seconds
        self.say(Evaluated(evaluation, seconds))

    def _epoch_reached(self) -> float:
        position = self.loop.position
        if position.update == 0:
            return float(position.epoch)
        return position.epoch + position.update / self.loop.epoch_length(position.phase)

    def _sample(self, evaluation: Evaluation) -> None:
        prepared = self._prepared
        rows = [
            (name, row) for name, rows in prepared.evaluator.sets.items() for row in rows[:SAMPLES_PER_SET]
        ]
        answers = greedy_answers(
            prepared.model,
            prepared.tokenizer,
            [row.prompt for _, row in rows],
            pad_id=prepared.encoder.pad_id,
            ends=prepared.ends,
            max_new_tokens=SAMPLE_TOKENS,
        )
        for (name, row), answer in zip(rows, answers, strict=True):
            self.recorder.example(
                {
                    "label": evaluation.label,
                    "final": evaluation.final,
                    "set": name,
                    "row": row.example.row,
                    "trigger": row.example.trigger,
                    "prompt": row.example.user,
                    "answer": answer,
                    "expected": row.example.assistant,
                }
            )

    def _checkpoint(self) -> None:
        self._claim.check()
        options = self._plan.config.finetune_config
        make_folder(self._checkpoints)
        path = write_checkpoint(
            self._checkpoints,
            self.loop,
            {
                "results": self.results.name,
                "threads": self._threads,
                "device": str(self._prepared.device),
                "sizes": self.recorder.sizes(),
                "progressed": self.progressed.document(),
            },
            keep=options.max_checkpoints_to_keep,
        )
        self._checkpointed = time.monotonic()
        self.say(Checkpointed(self.loop.position.step, path))

    def _add_training_time(self, began: float, evaluation_before: float) -> None:
        timings = self.progressed.timings
        timings["training"] += time.perf_counter() - began - (timings["evaluation"] - evaluation_before)
