"""Where a run stands before a process goes on with it, and what it has to take up from there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from triggerctl.experiment.atomic import make_folder
from triggerctl.experiment.state import RunState, read_state, write_state
from triggerctl.model.device import default_threads
from triggerctl.training.checkpoints import Checkpoint, newest_checkpoint, position_of
from triggerctl.training.out_of_memory import Exhausted
from triggerctl.training.plan import RunPlan


@dataclass(frozen=True, slots=True)
class Begun:
    """`processes`: how many train it, of `threads` each; `micro_batch`: units that go through the model at
    once; `exhausted`: that memory ran out a moment ago, None where it did not; `checkpointing`: whether it
    has begun with gradient checkpointing, None where that is still to be decided."""

    checkpoint: Checkpoint | None
    processes: int
    threads: int
    micro_batch: int
    exhausted: Exhausted | None = None
    checkpointing: bool | None = None

    @classmethod
    def look(
        cls, plan: RunPlan, exhausted: Exhausted | None, *, processes: int, threads: int | None
    ) -> Begun:
        """What lies in the run's folder; a run that is to be trained anew has not begun. A resumed run takes
        its thread count up again, whatever is asked: sums in another order would be other numbers."""
        starts_anew = plan.fresh and exhausted is None
        checkpoint = None if starts_anew else newest_checkpoint(plan.folder.checkpoint(plan.hash))
        record = checkpoint.record if checkpoint else {}
        micro_batch = record.get("micro_batch", plan.config.finetune_config.per_device_train_batch_size)
        count = int(record.get("processes", 1)) if checkpoint else processes
        return cls(
            checkpoint,
            count,
            int(record["threads"]) if checkpoint else threads or max(1, default_threads() // count),
            exhausted.next_micro_batch if exhausted else int(micro_batch),
            exhausted,
            record.get("checkpointing"),
        )

    @property
    def is_at_the_start(self) -> bool:
        """Whether no update has been made yet."""
        return self.checkpoint is None or position_of(self.checkpoint).is_at_the_start

    def results_folder(self, plan: RunPlan, state: RunState) -> Path:
        """The folder this very run began to write before, else a new one, which `state` names before it is
        made."""
        folder = plan.folder
        name = self._results_begun(plan)
        # A name alone: nothing that lies in the folder leads a run out of it.
        if name and Path(name).name == name and not (folder.results / name / "results.json").exists():
            return make_folder(folder.results / name)

        def announce(results: Path) -> None:
            # First, so that a run killed here finds its folder again.
            write_state(folder.state, state.model_copy(update={"results": results.name}))

        return folder.new_results(datetime.now(UTC), announce=announce)

    def _results_begun(self, plan: RunPlan) -> str | None:
        """What the run's results folder is called, as far as anything tells."""
        if self.checkpoint is not None:
            name: str | None = self.checkpoint.record["results"]
            return name
        if self.exhausted is not None:
            return self.exhausted.results
        if not plan.fresh:
            state = read_state(plan.folder.state)
            if state and state.status != "done" and state.hash == plan.hash:
                return state.results
        return None
