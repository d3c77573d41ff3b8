"""One run as it goes: announced, evaluated, trained, checkpointed, brought to its end, or to a state that
says why not. It owns what the loop leaves to its caller."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from triggerctl.errors import InterruptedRunError, TriggerctlError
from triggerctl.experiment.atomic import clear_unfinished_writes, disk_errors, make_folder
from triggerctl.experiment.claim import Claim
from triggerctl.experiment.process import this_process
from triggerctl.experiment.state import RunState, read_state, write_state
from triggerctl.strategies.base import MAIN, Phase
from triggerctl.training.begun import Begun
from triggerctl.training.checkpoints import (
    Checkpoint,
    position_of,
    restore,
    write_checkpoint,
)
from triggerctl.training.endings import make_endings
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
from triggerctl.training.loop import Position, TrainingLoop
from triggerctl.training.measuring import VARIANT, Measurer, Moment, Progressed
from triggerctl.training.orders import GoOn
from triggerctl.training.out_of_memory import (
    Exhausted,
    OutOfMemoryRunError,
    is_out_of_memory,
    out_of_memory,
)
from triggerctl.training.outcome import Figures, leave_results, summarise, work_of
from triggerctl.training.parallel import Group
from triggerctl.training.plan import RunPlan
from triggerctl.training.planes import PlaneStore
from triggerctl.training.recorder import Recorder
from triggerctl.training.setup import Prepared
from triggerctl.training.stopwatch import Stopwatch
from triggerctl.training.trackers import Tracker

CHECKPOINT_SECONDS = 120.0
"""Between checkpoints in the middle of an epoch; a fast epoch needs none."""


class Execution:
    """Implements the loop's `Hooks`."""

    def __init__(
        self,
        plan: RunPlan,
        prepared: Prepared,
        begun: Begun,
        planes: PlaneStore | None,
        listener: Listener,
        stop: threading.Event,
        held: Claim,
        threads: int,
        group: Group,
        watch: Stopwatch,
    ) -> None:
        checkpoint = begun.checkpoint
        self._watch = watch
        self._plan = plan
        self._begun = begun
        self._planes = planes
        self._prepared = prepared
        self._stop = stop
        self._claim = held
        self._threads = threads
        self._group = group
        self._began = time.perf_counter()
        self._checkpointed = time.monotonic()
        self._checkpoints = plan.folder.checkpoint(plan.hash)
        self._resumed = checkpoint is not None
        self._listeners: list[Listener] = [listener]
        self._state = RunState(
            status="running",
            hash=plan.hash,
            strategy=plan.strategy.name,
            seed=plan.config.seed,
            started=datetime.now(UTC),
        ).of(this_process())
        self.results = self._results_folder(checkpoint)
        self.progressed = Progressed.of(checkpoint, watch)
        self._entries_before: list[str] = checkpoint.record.get("cache_entries", []) if checkpoint else []
        self.recorder = Recorder(
            plan.folder,
            self.results,
            self._state.model_copy(update={"results": self.results.name}),
            sizes=checkpoint.record["sizes"] if checkpoint else {},
            every=plan.config.finetune_config.logging_steps,
        )
        self._listeners.insert(0, self.recorder)
        self._measurer = Measurer(
            prepared, self.progressed, self.recorder, say=self.say, stop=stop, group=group
        )
        tracker = plan.config.finetune_config.report_to
        if tracker != "none":
            self._listeners.append(Tracker(plan.config, tracker, self.results))
        self.loop: TrainingLoop

    # Talking
    # ------------------------------------------------------------------------------------------------------

    def say(self, event: Event) -> None:
        self._claim.check()
        for listener in self._listeners:
            listener(event)

    def _say_failed(self, error: str) -> None:
        """To each as far as it can hear: on a full disk there may be no room for the state, and the error
        itself must come through. A run that another process has taken over is no longer ours to speak of."""
        if self._claim.lost.is_set():
            return
        for listener in self._listeners:
            try:
                listener(Failed(error))
            except TriggerctlError as second:
                logging.getLogger("triggerctl.run").warning("the failure can't be written down: %s", second)

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
            with self._watch.phase("training"):
                if self._planes is not None:
                    self._planes.take_up(self.loop, self._group, stop=self._stop, say=self._note)
                self._group.tell(GoOn())
                self.loop.run(self)
            self._end()
            self._leave(figures)
            self.say(Finished(self.results, time.perf_counter() - self._began))
        except InterruptedRunError:
            self._interrupted()
            raise
        except TriggerctlError as error:
            self._say_failed(str(error))
            raise
        except Exception as error:
            if not is_out_of_memory(error):
                self._say_failed(f"{type(error).__name__}: {error}")
                raise
            exhausted = Exhausted(str(error).splitlines()[0], self._begun.micro_batch, self.results.name)
            if self._begun.exhausted is None and exhausted.micro_batch > 1:
                raise OutOfMemoryRunError(exhausted) from None
            self._say_failed(f"out of memory: {exhausted.why}")
            raise out_of_memory(exhausted) from None
        finally:
            if self._planes is not None:
                self._planes.release()
            self.recorder.close()
        return self.results

    def _interrupted(self) -> None:
        try:
            self._checkpoint()
            self.say(Interrupted(self.loop.position.step))
        except TriggerctlError as error:
            self._say_failed(str(error))
            raise

    def _begin(self) -> None:
        """The loop where the run stands, what it has gathered put back; all its processes together."""
        prepared, checkpoint = self._prepared, self._begun.checkpoint
        self.loop = TrainingLoop(
            prepared.model,
            prepared.strategy,
            prepared.phases,
            pad_id=prepared.encoder.pad_id,
            optimiser_name=prepared.optimiser,
            micro_batch=self._begun.micro_batch,
            position=position_of(checkpoint) if checkpoint else Position(),
            listener=self.say,
            should_stop=self._should_stop,
            group=self._group,
        )
        self._group.assemble()
        if checkpoint is not None:
            restore(checkpoint, self.loop)
        else:
            for warning in (
                *self._plan.warnings,
                *prepared.warnings,
                *(self._planes.warnings if self._planes else ()),
            ):
                self.warn(warning)
        if self._begun.exhausted is not None:
            self.warn(self._begun.exhausted.said)

    def _note(self, message: str) -> None:
        self.say(Noted(message))

    def _end(self) -> None:
        """What the strategy does to the trained weights once training is over, each way evaluated; the last
        way stays."""
        strategy, model = self._prepared.strategy, self._prepared.model
        last = len(strategy.endings())
        for place, (ending, note) in enumerate(make_endings(strategy, model), start=1):
            final = place == last
            self._evaluate(MAIN if final else VARIANT, final=final, label=ending, note=note)
            self._note(f"{ending}: {note}")
            self._group.tell(GoOn())

    def _leave(self, figures: Figures) -> None:
        self._claim.check()
        progressed = self.progressed
        summary = summarise(
            self._plan,
            self._prepared,
            self.loop.position,
            progressed,
            threads=self._threads,
            processes=self._group.size,
            micro_batch=self._begun.micro_batch,
            cache_entries=self._cache_entries,
        )
        clear_unfinished_writes(self.results)
        with disk_errors(self.results):
            leave_results(
                self._plan,
                self._prepared,
                self.results,
                summary,
                self.loop.position,
                figures=figures,
                say=lambda message: self.say(Warned(message)),
                threads=self._threads,
                watch=self._watch,
                work=work_of(self._prepared, self.loop.position, progressed, processes=self._group.size),
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
                processes=self._group.size,
            )
        )

    def _results_folder(self, checkpoint: Checkpoint | None) -> Path:
        """The folder this very run began to write before, else a new one."""
        folder = self._plan.folder
        begun: str | None = None
        if checkpoint is not None:
            begun = checkpoint.record["results"]
        elif self._begun.exhausted is not None:
            begun = self._begun.exhausted.results
        if begun is None and not self._plan.fresh:
            state = read_state(folder.state)
            if state and state.status != "done" and state.hash == self._plan.hash:
                begun = state.results
        # A name alone: nothing that lies in the folder leads a run out of it.
        if begun and Path(begun).name == begun and not (folder.results / begun / "results.json").exists():
            return make_folder(folder.results / begun)

        def announce(results: Path) -> None:
            # First, so that a run killed here finds its folder again.
            write_state(folder.state, self._state.model_copy(update={"results": results.name}))

        return folder.new_results(datetime.now(), announce=announce)

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
        if self._planes is not None:
            self._planes.keep_after(phase, self.loop, self._note)

    def _should_stop(self) -> bool:
        asked = self._stop.is_set()
        if not asked:
            self._group.tell(GoOn())
        return asked

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
        with self._watch.phase("save"):
            make_folder(self._checkpoints)
            path = write_checkpoint(
                self._checkpoints,
                self.loop,
                {
                    "results": self.results.name,
                    "threads": self._threads,
                    "processes": self._group.size,
                    "micro_batch": self._begun.micro_batch,
                    "device": str(self._prepared.device),
                    "sizes": self.recorder.sizes(),
                    "progressed": self.progressed.document(),
                    "cache_entries": self._cache_entries,
                },
                keep=options.max_checkpoints_to_keep,
            )
        self._checkpointed = time.monotonic()
        self.say(Checkpointed(self.loop.position.step, path))
