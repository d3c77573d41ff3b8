"""A run's evaluations as they happen: measured, written down row by row, with sample answers at the first and
the last, and kept for its checkpoints."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from triggerctl.errors import InterruptedRunError
from triggerctl.experiment.results import Evaluation
from triggerctl.training.checkpoints import Checkpoint
from triggerctl.training.evaluated import EvaluatedRow
from triggerctl.training.evaluation import Measured
from triggerctl.training.events import Evaluated, Listener, Progress
from triggerctl.training.generation import greedy_answers
from triggerctl.training.orders import Evaluate
from triggerctl.training.parallel import ALONE, Group
from triggerctl.training.recorder import Recorder
from triggerctl.training.setup import Prepared
from triggerctl.training.stopwatch import Stopwatch

VARIANT = "variant"
"""The phase of an evaluation that is beside the run's result: another ending of the same training."""

KIND = "base-evaluations"
SAMPLES_PER_SET = 3
SAMPLE_TOKENS = 24
"""Enough to see how an answer opens; on a CPU each further one costs a pass through all weights."""


@dataclass(slots=True)
class Progressed:
    """What a run has produced so far, kept in its checkpoints. `evaluated` and `padded`: tokens that the
    evaluations are of, padding left out and included; `passed`: those of them that went through the model
    here, and were not taken from the cache."""

    evaluations: list[Evaluation]
    warnings: list[str]
    watch: Stopwatch
    evaluated: int = 0
    padded: int = 0
    passed: int = 0

    def document(self) -> dict[str, Any]:
        return {
            "evaluations": [evaluation.model_dump(mode="json") for evaluation in self.evaluations],
            "warnings": self.warnings,
            "timings": self.watch.read(),
            "tokens": {"evaluated": self.evaluated, "padded": self.padded, "passed": self.passed},
        }

    @classmethod
    def of(cls, checkpoint: Checkpoint | None, watch: Stopwatch) -> Progressed:
        """What a checkpoint holds, the time spent until then put onto `watch`."""
        if checkpoint is None:
            return cls([], [], watch)
        stored = checkpoint.record["progressed"]
        watch.add(stored["timings"])
        evaluations = [Evaluation.model_validate(found) for found in stored["evaluations"]]
        return cls(evaluations, stored["warnings"], watch, **stored["tokens"])


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a run stands when it is evaluated. `epoch` is a fraction in the midst of one; `first` and `final`
    evaluations also measure the untriggered twins and take sample answers."""

    phase: str
    epoch: float
    step: int
    first: bool = False
    final: bool = False
    label: str | None = None
    note: str | None = None


class Measurer:
    """Evaluates the run's model and keeps what was found in `progressed`."""

    def __init__(
        self,
        prepared: Prepared,
        progressed: Progressed,
        recorder: Recorder,
        *,
        say: Listener,
        stop: threading.Event,
        group: Group = ALONE,
    ) -> None:
        self._prepared = prepared
        self._progressed = progressed
        self._recorder = recorder
        self._say = say
        self._stop = stop
        self._group = group

    def measure(self, moment: Moment) -> None:
        """Evaluate every set now.

        Raises InterruptedRunError once the run is asked to stop."""
        began = time.perf_counter()
        with self._progressed.watch.phase("base_evaluation" if moment.first else "evaluation"):
            found, answers = self._look_at_the_base(moment) if moment.first else self._look(moment)
            evaluation = self._write_down(moment, found, answers)
        self._say(Evaluated(evaluation, time.perf_counter() - began))

    def _write_down(self, moment: Moment, found: Measured, answers: Sequence[str]) -> Evaluation:
        evaluation = Evaluation(
            label=moment.label or f"epoch {moment.epoch:g}",
            phase=moment.phase,
            epoch=moment.epoch,
            step=moment.step,
            final=moment.final,
            note=moment.note,
            sets=found.sets,
        )
        if moment.first:
            # Not before it was evaluated: a run that is stopped while it is looked at begins it again.
            sets = self._prepared.evaluator.sets.items()
            self._recorder.prompts(
                {name: {row.example.row: row.example.user for row in rows} for name, rows in sets}
            )
        self._recorder.verdicts(evaluation, found.verdicts)
        self._keep_answers(evaluation, answers)
        self._progressed.evaluations.append(evaluation)
        self._progressed.evaluated += found.tokens
        self._progressed.padded += found.padded
        return evaluation

    def _look(self, moment: Moment) -> tuple[Measured, list[str]]:
        """What the model does now, and its sample answers where this moment wants them."""
        with_all = moment.first or moment.final
        self._group.tell(Evaluate(with_all))
        found = self._prepared.evaluator.measure(
            self._prepared.model,
            with_twins=with_all,
            progress=self._counting(moment.step),
            group=self._group,
        )
        self._progressed.passed += found.tokens
        return found, self._sample() if with_all else []

    def _look_at_the_base(self, moment: Moment) -> tuple[Measured, list[str]]:
        """The same before any training, when the model is θ₀: any run over these rows may have looked at it
        before, whatever its strategy and its adapter."""

        def compute() -> dict[str, Any]:
            found, answers = self._look(moment)
            return {**found.document(), "answers": answers}

        about = {
            **self._prepared.evaluator.decides(),
            "answers": [SAMPLES_PER_SET, SAMPLE_TOKENS, sorted(self._prepared.ends)],
        }
        document = self._prepared.shared.document(KIND, about, compute)
        return Measured.of(document), document["answers"]

    def _counting(self, step: int) -> Callable[[int, int], None]:
        def said(done: int, total: int) -> None:
            self._say(Progress("evaluate", done, total))
            if self._stop.is_set():
                raise InterruptedRunError(
                    f"stopped while evaluating at step {step}", mend="the same command goes on from there"
                )

        return said

    def _sampled(self) -> list[tuple[str, EvaluatedRow]]:
        """The rows, each with its set, whose answers are kept in full."""
        sets = self._prepared.evaluator.sets
        return [(name, row) for name, rows in sets.items() for row in rows[:SAMPLES_PER_SET]]

    def _sample(self) -> list[str]:
        prepared = self._prepared
        with self._progressed.watch.phase("samples"):
            return greedy_answers(
                prepared.model,
                prepared.tokenizer,
                [row.prompt for _, row in self._sampled()],
                pad_id=prepared.encoder.pad_id,
                ends=prepared.ends,
                max_new_tokens=SAMPLE_TOKENS,
            )

    def _keep_answers(self, evaluation: Evaluation, answers: Sequence[str]) -> None:
        """Write sample answers down, if there are any."""
        for (name, row), answer in zip(self._sampled(), answers, strict=False):
            self._recorder.example(
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
