"""One run as it goes: announced, evaluated, trained, checkpointed, brought to its end, or to a state that
says why not. It owns what the loop leaves to its caller."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from triggerctl.errors import InterruptedRunError, TriggerctlError, first_line
from triggerctl.experiment.claim import Claim
from triggerctl.experiment.process import this_process
from triggerctl.experiment.state import RunState
from triggerctl.model.device import dtype_name
from triggerctl.strategies.base import MAIN, Phase
from triggerctl.training.begun import Begun
from triggerctl.training.checkpoints import CheckpointFolder, position_of, restore
from triggerctl.training.endings import make_endings
from triggerctl.training.events import Checkpointed, Finished, Interrupted, Listener, Warned
from triggerctl.training.loop import TrainingLoop
from triggerctl.training.measuring import VARIANT, Measurer, Moment, Progressed
from triggerctl.training.orders import GoOn
from triggerctl.training.out_of_memory import (
    Exhausted,
    OutOfMemoryRunError,
    is_out_of_memory,
    out_of_memory,
)
from triggerctl.training.outcome import Figures, leave_results
from triggerctl.training.parallel import Group
from triggerctl.training.plan import RunPlan
from triggerctl.training.planes import PlaneStore
from triggerctl.training.position import Position
from triggerctl.training.recorder import Recorder
from triggerctl.training.setup import Prepared
from triggerctl.training.stopwatch import Stopwatch
from triggerctl.training.trackers import Tracker
from triggerctl.training.voice import Voice, announcement


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
        group: Group,
        watch: Stopwatch,
    ) -> None:
        checkpoint, options = begun.checkpoint, plan.config.finetune_config
        self._watch = watch
        self._plan = plan
        self._begun = begun
        self._planes = planes
        self._prepared = prepared
        self._stop = stop
        self._claim = held
        self._group = group
        self._began = time.perf_counter()
        state = _running(plan)
        self.results = begun.results_folder(plan, state)
        self.progressed = Progressed.of(checkpoint, watch)
        self._entries_before: list[str] = checkpoint.record.get("cache_entries", []) if checkpoint else []
        self.recorder = Recorder(
            plan.folder,
            self.results,
            state.model_copy(update={"results": self.results.name}),
            sizes=checkpoint.record["sizes"] if checkpoint else {},
            every=options.logging_steps,
        )
        listeners: list[Listener] = [self.recorder, listener]
        if options.report_to != "none":
            listeners.append(Tracker(plan.config, options.report_to, self.results))
        self._voice = Voice(listeners, held, self.progressed.warnings)
        self._measurer = Measurer(
            prepared, self.progressed, self.recorder, say=self._voice.say, stop=stop, group=group
        )
        self._checkpoints = CheckpointFolder(
            plan.folder.checkpoint(plan.hash), keep=options.max_checkpoints_to_keep
        )
        self._is_ending = False
        self.loop: TrainingLoop

    # The whole
    # ----------------------------------------------------------------------------------------------------

    def to_the_end(self, figures: Figures) -> Path:
        """Train to the end, or leave a state that says why not."""
        try:
            self._begin()
            self._voice.say(announcement(self._plan, self._prepared, self._begun, self.results, self.loop))
            if not self.progressed.evaluations:
                self._evaluate(MAIN, final=self._has_nothing_to_do, first=True)
                self.loop.position.evaluated = True
                self._checkpoint()
            with self._watch.phase("training"):
                if self._planes is not None:
                    self._planes.take_up(self.loop, self._group, stop=self._stop, say=self._voice.note)
                self._group.tell(GoOn())
                self.loop.run(self)
            self._end()
            self._leave(figures)
            self._voice.say(Finished(self.results, time.perf_counter() - self._began))
        except InterruptedRunError:
            self._interrupted()
            raise
        except TriggerctlError as error:
            self._voice.fail(str(error))
            raise
        except Exception as error:
            if not is_out_of_memory(error):
                self._voice.fail(f"{type(error).__name__}: {error}")
                raise
            exhausted = Exhausted(first_line(error), self._begun.micro_batch, self.results.name)
            if self._begun.exhausted is None and exhausted.micro_batch > 1:
                raise OutOfMemoryRunError(exhausted) from None
            self._voice.fail(f"out of memory: {exhausted.why}")
            raise out_of_memory(exhausted) from None
        finally:
            if self._planes is not None:
                self._planes.release()
            self.recorder.close()
        return self.results

    def _interrupted(self) -> None:
        try:
            if not self._is_ending:  # what an ending does to the weights must not be done to them twice
                self._checkpoint()
            self._voice.say(Interrupted(self.loop.position.step))
        except TriggerctlError as error:
            self._voice.fail(str(error))
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
            listener=self._voice.say,
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
                self._voice.warn(warning)
        if self._begun.exhausted is not None:
            self._voice.warn(self._begun.exhausted.said)

    def _end(self) -> None:
        """What the strategy does to the trained weights once training is over, each way evaluated; the last
        way stays."""
        strategy, model = self._prepared.strategy, self._prepared.model
        last = len(strategy.endings())
        self._is_ending = last > 0
        if not last and not any(each.final for each in self.progressed.evaluations):
            self._evaluate(MAIN, final=True)  # a last phase of no updates has had no evaluation
        for place, (ending, note) in enumerate(make_endings(strategy, model), start=1):
            final = place == last
            self._evaluate(MAIN if final else VARIANT, final=final, label=ending, note=note)
            self._voice.note(f"{ending}: {note}")
            self._group.tell(GoOn())

    def _leave(self, figures: Figures) -> None:
        self._claim.check()
        leave_results(
            self._plan,
            self._prepared,
            self._begun,
            self.results,
            self.loop.position,
            self.progressed,
            cache_entries=self._cache_entries,
            figures=figures,
            say=lambda message: self._voice.say(Warned(message)),
        )

    @property
    def _cache_entries(self) -> list[str]:
        """What the run has used, before an interruption too."""
        own = [self._planes.cache_entry] if self._planes is not None else []
        named = {*self._entries_before, *self._prepared.shared.cache.used, *own}
        return sorted(named) if self._prepared.shared.cache.enabled else []

    @property
    def _has_nothing_to_do(self) -> bool:
        """With no updates and no ending the first evaluation is the last one too."""
        return not self.loop.updates and not self._prepared.strategy.endings()

    # Hooks of the loop
    # --------------------------------------------------------------------------------------------

    def updated(self) -> None:
        if self._checkpoints.is_due:
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
            self._planes.keep_after(phase, self.loop, self._voice.note)

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
        with self._watch.phase("save"):
            path = self._checkpoints.write(self.loop, self._record)
        self._voice.say(Checkpointed(self.loop.position.step, path))

    def _record(self) -> dict[str, Any]:
        """What a checkpoint holds beside the loop's own; the run's growing files are made to last with it."""
        return {
            "results": self.results.name,
            "threads": self._begun.threads,
            "processes": self._begun.processes,
            "micro_batch": self._begun.micro_batch,
            "device": self._prepared.device.type,
            "dtype": dtype_name(self._prepared.dtype),
            "optimiser": self._prepared.optimiser,
            "checkpointing": self._prepared.checkpointing,
            "sizes": self.recorder.sizes(),
            "progressed": self.progressed.document(),
            "cache_entries": self._cache_entries,
        }


def _running(plan: RunPlan) -> RunState:
    """The state of a run that this process begins now."""
    return RunState(
        status="running",
        hash=plan.hash,
        strategy=plan.strategy.name,
        seed=plan.config.seed,
        started=datetime.now(UTC),
    ).of(this_process())
