"""Writes what a run says to its folder: metrics.jsonl, verdicts.jsonl, prompts.jsonl, examples.jsonl, run.log
and state.json."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from triggerctl import disk
from triggerctl.errors import TriggerctlError
from triggerctl.experiment.atomic import disk_errors
from triggerctl.experiment.jsonl import JsonLinesWriter, truncate_to
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.experiment.results import Evaluation
from triggerctl.experiment.state import RunState, Status, write_state
from triggerctl.training.events import (
    Checkpointed,
    Evaluated,
    Event,
    Failed,
    Finished,
    Interrupted,
    Noted,
    PhaseStarted,
    Started,
    Stepped,
    Warned,
)

STATE_SECONDS = 5.0
LINES = ("metrics.jsonl", "verdicts.jsonl", "prompts.jsonl", "examples.jsonl")


class Recorder:
    """One run's files. A listener for its events; `sizes` and a truncation make a resumed run write on as if
    it had never stopped."""

    def __init__(
        self,
        folder: ExperimentFolder,
        results: Path,
        state: RunState,
        *,
        sizes: Mapping[str, int],
        every: int,
    ) -> None:
        self._folder = folder
        self._results = results
        self._every = every
        self.state = state
        for name in LINES:
            truncate_to(results / name, sizes.get(name, 0))
        self._files = {name: JsonLinesWriter(results / name) for name in LINES}
        self._state_written = 0.0
        self._log = logging.getLogger("triggerctl.run")

    def sizes(self) -> dict[str, int]:
        """How long the growing files are now, everything in them made to last."""
        return {name: file.sync() for name, file in self._files.items()}

    def verdicts(self, evaluation: Evaluation, sets: Mapping[str, Mapping[str, object]]) -> None:
        """A line for each set of one evaluation, its rows as columns."""
        about = evaluation.model_dump(mode="json", exclude={"sets"})
        for name, columns in sets.items():
            self._files["verdicts.jsonl"].append({**about, "set": name, **columns})

    def prompts(self, sets: Mapping[str, Mapping[int, str]]) -> None:
        """What each row of a set asks, by its row id: once a run, so that verdicts can be read without the
        data."""
        for name, asked in sets.items():
            line = {"set": name, "row": list(asked), "prompt": list(asked.values())}
            self._files["prompts.jsonl"].append(line)

    def example(self, line: Mapping[str, object]) -> None:
        """One generated answer."""
        self._files["examples.jsonl"].append(line)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._log.info(
                    "%s, seed %s, hash %s: %s updates on %s (%s, %s threads%s)%s",
                    event.strategy,
                    event.seed,
                    event.hash,
                    event.updates,
                    event.device,
                    event.dtype,
                    event.threads,
                    "" if event.processes == 1 else f" in each of {event.processes} processes",
                    "" if event.resumed_step is None else f", resumed at step {event.resumed_step}",
                )
                self._update("running", write=True, epochs=event.epochs, steps=event.updates)
            case PhaseStarted():
                self._log.info("phase %s: %g epochs, %s updates", event.phase, event.epochs, event.updates)
                # Epochs and steps are counted anew in each phase.
                self._update("running", write=False, epochs=event.epochs, steps=event.updates)
            case Stepped():
                self._step(event)
            case Evaluated():
                self._evaluated(event)
            case Checkpointed():
                self._log.info("checkpoint at step %s: %s", event.step, event.path.name)
            case Warned():
                self._log.warning(event.message)
                self._line("warned", {"message": event.message})
            case Noted():
                self._log.info(event.message)
            case Finished():
                self._log.info("finished after %.1f s: %s", event.seconds, event.results)
                # The results stand: whoever looks sees it by them, and who comes next puts the state right.
                try:
                    self._update("done", write=True, finished=datetime.now(UTC), error=None)
                except TriggerctlError as error:
                    self._log.warning("the state can't be written: %s", error)
            case Interrupted():
                self._log.info("interrupted at step %s", event.step)
                self._update("interrupted", write=True)
            case Failed():
                self._log.error(event.error)
                # What failed may be the disk: the state is what matters most, and each is tried. Finished
                # results are not touched: what failed came after them.
                if not (self._results / "results.json").exists():
                    with contextlib.suppress(TriggerctlError):
                        self._line("failed", {"error": event.error})
                self._update("failed", write=True, error=event.error, finished=datetime.now(UTC))

    def _step(self, event: Stepped) -> None:
        if event.step % self._every == 0 or event.step == event.updates:
            line = asdict(event)
            # Speeds differ from run to run; a line must not, so that resumed and undisturbed runs compare
            # equal.
            del line["tokens_per_second"], line["seconds_left"]
            self._line("step", line)
        progress = self.state.progress.model_copy(
            update={
                "phase": event.phase,
                "loss": event.loss,
                "tokens_per_second": event.tokens_per_second,
                "seconds_left": event.seconds_left,
            }
        )
        due = time.monotonic() - self._state_written > STATE_SECONDS
        self._update(
            "running", write=due, epoch=event.epoch, step=event.step, steps=event.updates, progress=progress
        )

    def _evaluated(self, event: Evaluated) -> None:
        evaluation = event.evaluation
        rates = {
            name: found.triggered.rate if found.triggered else None for name, found in evaluation.sets.items()
        }
        shown = ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items() if rate is not None)
        self._log.info("%s: trigger response rate %s (%.1f s)", evaluation.label, shown, event.seconds)
        self._line("evaluated", evaluation.model_dump(mode="json"))
        progress = self.state.progress.model_copy(update={"rates": rates})
        self._update("running", write=True, epoch=evaluation.epoch, step=evaluation.step, progress=progress)

    def _line(self, event: str, content: Mapping[str, object]) -> None:
        self._files["metrics.jsonl"].append({"event": event, **content})

    def _update(self, status: Status, *, write: bool, **values: object) -> None:
        heartbeat = datetime.now(UTC)
        self.state = self.state.model_copy(update={"status": status, "heartbeat": heartbeat, **values})
        if write:
            write_state(self._folder.state, self.state)
            self._state_written = time.monotonic()


class _LogFile(logging.FileHandler):
    """A log for which there is no room is no reason to end a run, nor to fill the screen."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        return

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def run_log(path: Path) -> Iterator[None]:
    """Within it, what this process logs or warns of goes to the run's log as well."""
    with disk_errors(path):
        handler = _LogFile(disk.before_opening("write", path), encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root, own = logging.getLogger(), logging.getLogger("triggerctl")
    level = own.level
    own.setLevel(logging.INFO)
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        own.setLevel(level)
        handler.close()
