"""One run from its plan to its results: the engine's one entry. Whatever moment it dies at, the same call
goes on."""

from __future__ import annotations

import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from triggerctl.errors import InterruptedRunError, RunError, TriggerctlError
from triggerctl.experiment.atomic import make_folder
from triggerctl.experiment.cache import Cache
from triggerctl.experiment.claim import Claim, claim
from triggerctl.experiment.state import RunState, read_state
from triggerctl.model.device import default_threads, resolve_device
from triggerctl.model.keeper import ModelKeeper
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
    Event,
    Failed,
    Finished,
    Interrupted,
    Listener,
    Noted,
    Started,
    Warned,
)
from triggerctl.training.loop import Position, TrainingLoop, is_at_the_start
from triggerctl.training.measuring import VARIANT, Measurer, Moment, Progressed
from triggerctl.training.outcome import Figures, leave_results, summarise
from triggerctl.training.plan import Action, RunPlan, decide
from triggerctl.training.planes import PlaneStore, plane_store
from triggerctl.training.recorder import Recorder, run_log
from triggerctl.training.settle import settle
from triggerctl.training.setup import Prepared, prepare
from triggerctl.training.trackers import Tracker, check_tracker

CHECKPOINT_SECONDS = 120.0
"""Between checkpoints in the middle of an epoch; a fast epoch needs none."""


def execute(
    plan: RunPlan,
    *,
    listener: Listener,
    stop: threading.Event,
    figures: Figures,
    device: str = "auto",
    threads: int | None = None,
    cache: bool = True,
    keeper: ModelKeeper | None = None,
) -> Path:
    """Train, evaluate and leave results, `figures` drawn among them; returns the results folder.

    `cache` false: nothing computed is taken from the cache or left there. `keeper`: of who trains many runs
    in this process, so that they share a loaded model. Neither changes a number.

    `stop`, once set, ends the run at its next update with a checkpoint. A run that another process finished
    in the meantime is not trained again. Raises InputError before anything is written where something can't
    be used, BusyError where another process works here, RunError where the run fails (state `failed`),
    InterruptedRunError once it has stopped (state `interrupted`)."""
    shelf = Cache(enabled=cache)
    make_folder(plan.folder.path)
    with claim(plan.folder.path) as held:
        action, _, finished = decide(plan.folder, plan.config, plan.hash, fresh=plan.fresh)
        if action is Action.SKIP and finished is not None:
            settle(plan, finished)
            return finished
        own = plan.folder.checkpoint(plan.hash)
        checkpoint = None if plan.fresh else newest_checkpoint(own)
        chosen = resolve_device(device)
        if chosen.type == "cuda":
            torch.cuda.reset_peak_memory_stats(chosen)  # another run of this process may have held more
        used_threads = _set_threads(checkpoint, threads)
        check_tracker(plan.config.finetune_config.report_to)
        prepared = prepare(plan, chosen, listener, cache=shelf, keeper=keeper)
        planes = plane_store(plan, prepared, threads=used_threads)
        if planes is not None and (checkpoint is None or is_at_the_start(position_of(checkpoint))):
            planes.find()
        if plan.fresh:
            shutil.rmtree(own, ignore_errors=True)
        with run_log(plan.folder.log):
            run = _Run(plan, prepared, checkpoint, planes, listener, stop, held, used_threads)
            results = run.to_the_end(figures)
            shelf.trim()
        if keeper is not None:
            keeper.put_back(prepared.model)
        return results


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
        planes: PlaneStore | None,
        listener: Listener,
        stop: threading.Event,
        held: Claim,
        threads: int,
    ) -> None:
        self._plan = plan
        self._checkpoint_before = checkpoint
        self._planes = planes
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
        self._entries_before: list[str] = checkpoint.record.get("cache_entries", []) if checkpoint else []
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
        self._measurer = Measurer(prepared, self.progressed, self.recorder, say=self.say, stop=stop)
        tracker = plan.config.finetune_config.report_to
        if tracker != "none":
            self._listeners.append(Tracker(plan.config, tracker, self.results))
        self.loop: TrainingLoop

    # Talking
    # ------------------------------------------------------------------------------------------------------

    def say(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)

    def warn(self, message: str) -> None:
        self.progressed.warnings.append(message)
        self.say(Warned(message))

    # The whole
    # ----------------------------------------------------------------------------------------------------

    def to_the_end(self, figures: Figures) -> Path:
        """Train to the end, or leave a state that says why not."""
        try:
            self._begin()
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

    def _begin(self) -> None:
        """The loop where the run stands, what it has gathered put back."""
        prepared, checkpoint = self._prepared, self._checkpoint_before
        self.loop = TrainingLoop(
            prepared.model,
            prepared.strategy,
            prepared.phases,
            pad_id=prepared.encoder.pad_id,
            optimiser_name=prepared.optimiser,
            position=position_of(checkpoint) if checkpoint else Position(),
            listener=self.say,
            should_stop=self._stop.is_set,
        )
        if checkpoint is not None:
            restore(checkpoint, self.loop)
            return
        for warning in (
            *self._plan.warnings,
            *prepared.warnings,
            *(self._planes.warnings if self._planes else ()),
        ):
            self.warn(warning)

    def _obtain_plane(self) -> None:
        """Take up an alignment plane that another run has found, or claim its computation."""
        strategy, loop = self._prepared.strategy, self.loop
        if self._planes is None or not is_at_the_start(loop.position):
            return
        assert isinstance(strategy, AlignmentPlaneStrategy)
        found = self._planes.found or self._planes.wait_for_others(self._stop, self._note)
        if found is not None:
            strategy.take_plane({n: t.to(self._prepared.device) for n, t in found.tensors.items()})
            loop.position.losses.update(found.losses)
            loop.skip_to(len(loop.phases) - 1)
            self._note(f"alignment plane taken from {found.place}")

    def _note(self, message: str) -> None:
        self.say(Noted(message))

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
            self._note(f"{ending}: {note}")

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
            cache_entries=self._cache_entries,
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
    def _cache_entries(self) -> list[str]:
        """What the run has used, before an interruption too."""
        own = [self._planes.cache_entry] if self._planes is not None else []
        named = {*self._entries_before, *self._prepared.shared.cache.used, *own}
        return sorted(named) if self._prepared.shared.cache.enabled else []

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
            self._planes.keep(strategy.plane, {name: losses[name] for name in strategy.sides()}, self._note)

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
        position = self.loop.position
        epoch = float(position.epoch)
        if position.update:
            epoch += position.update / self.loop.epoch_length(position.phase)
        self._measurer.measure(Moment(phase, epoch, position.step, first, final, label, note))

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
                "cache_entries": self._cache_entries,
            },
            keep=options.max_checkpoints_to_keep,
        )
        self._checkpointed = time.monotonic()
        self.say(Checkpointed(self.loop.position.step, path))

    def _add_training_time(self, began: float, evaluation_before: float) -> None:
        timings = self.progressed.timings
        timings["training"] += time.perf_counter() - began - (timings["evaluation"] - evaluation_before)
