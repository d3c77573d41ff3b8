"""Losses and trigger response rates of every set, always on the same rows, in one pass over the model.

What several questions share is run once: a row whose answer opens with the nice response gives its loss and
its verdict together, and a prompt that stands in several sets is judged once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from triggerctl.data.encoding import Encoded, Encoder
from triggerctl.data.examples import EvaluationSet
from triggerctl.experiment.results import SetEvaluation
from triggerctl.model.causal import CausalModel
from triggerctl.model.positions import LOGITS_AT_ONCE, POSITIONS_AT_ONCE
from triggerctl.training.evaluated import EvaluatedRow, RowLoss, columns, summary
from triggerctl.training.parallel import ALONE, Group
from triggerctl.training.scoring import Answer, Ids, Request, Scored, score
from triggerctl.training.shared import digest
from triggerctl.training.verdicts import Judge, Question


@dataclass(frozen=True, slots=True)
class Measured:
    """One evaluation. `verdicts` holds for each set the columns of its line in verdicts.jsonl, row by row;
    `tokens` is how many went through the model, `padded` how many padding included."""

    sets: dict[str, SetEvaluation]
    verdicts: dict[str, dict[str, object]]
    tokens: int
    padded: int

    def document(self) -> dict[str, Any]:
        """As plain data, NaN as it is."""
        return {
            "sets": {name: found.model_dump() for name, found in self.sets.items()},
            "verdicts": self.verdicts,
            "tokens": self.tokens,
            "padded": self.padded,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Measured:
        """The inverse of `document`."""
        sets = {name: SetEvaluation.model_validate(found) for name, found in document["sets"].items()}
        return cls(sets, document["verdicts"], document["tokens"], document["padded"])


class Evaluator:
    """Holds a run's encoded evaluation sets; `measure` can be called any number of times."""

    def __init__(
        self,
        sets: Mapping[str, EvaluationSet],
        encoder: Encoder,
        judge: Judge,
        *,
        nice_response: str,
        pad_id: int,
        tokens_per_batch: int,
        rows_per_batch: int | None = None,
    ) -> None:
        self._encoder = encoder
        self._judge = judge
        self._nice = nice_response
        self._pad_id = pad_id
        self._tokens_per_batch = tokens_per_batch
        self._rows_per_batch = rows_per_batch
        self.dropped: dict[str, int] = {}
        self.truncated: dict[str, int] = {}
        self.sets = self._encode(sets)

    def _encode(self, sets: Mapping[str, EvaluationSet]) -> dict[str, list[EvaluatedRow]]:
        """Every set's rows without those that don't fit; all sets in one go."""
        wholes = iter(self._encoder.encode_all([e for rows in sets.values() for e in rows.examples]))
        all_twins = iter(self._encoder.encode_all([e for rows in sets.values() for e in rows.twins]))
        encoded: dict[str, list[EvaluatedRow]] = {}
        asked: list[Encoded] = []
        for name, rows in sets.items():
            own = [next(wholes) for _ in rows.examples]
            twins = [next(all_twins) for _ in rows.twins] if rows.twins else [None] * len(own)
            kept = [
                EvaluatedRow(example, whole, whole.prompt_ids, twin.prompt_ids if twin else None)
                for example, whole, twin in zip(rows.examples, own, twins, strict=True)
                if whole is not None
            ]
            self.dropped[name] = len(own) - len(kept)
            self.truncated[name] = sum(row.encoded.truncated for row in kept)
            encoded[name] = kept
            asked += [row.encoded for row in kept] + [twin for twin in twins if twin is not None]
        guesses = self._encoder.continuation_ids([row.example for row in asked], self._nice)
        self._guesses = {row.prompt_ids: guess for row, guess in zip(asked, guesses, strict=True)}
        return encoded

    def measure(
        self,
        model: CausalModel,
        *,
        with_twins: bool,
        progress: Callable[[int, int], None],
        group: Group = ALONE,
    ) -> Measured:
        """Evaluate every set; `with_twins`: the untriggered twins too, for false positives everywhere. Where
        `group` is of several processes, all of them must call this, and all find the same."""
        group.check_same(model.trainable)
        rows = [row for rows in self.sets.values() for row in rows]
        prompts = dict.fromkeys(row.prompt for row in rows)
        if with_twins:
            prompts |= dict.fromkeys(row.twin for row in rows if row.twin is not None)
        questions = {prompt: Question(prompt, self._guesses[prompt]) for prompt in prompts}
        wholes = {row.encoded.input_ids: row.encoded for row in rows}
        with model.evaluating(), model.threads_for(self._tokens_per_batch):
            losses, tokens, padded = self._run(
                model, list(wholes.values()), list(questions.values()), progress, group
            )
        sets, verdicts = {}, {}
        for name, members in self.sets.items():
            sets[name] = summary(members, losses, questions, with_twins)
            verdicts[name] = columns(members, losses, questions, with_twins)
        return Measured(sets, verdicts, tokens, padded)

    def decides(self) -> dict[str, Any]:
        """All that decides what `measure` finds in a given model, twins included, as plain values."""
        return {
            "sets": {
                name: digest(
                    [
                        astuple(row.example),
                        row.encoded.input_ids,
                        row.encoded.prompt_length,
                        row.encoded.loss_start,
                        row.twin,
                        self._guesses[row.prompt],
                        None if row.twin is None else self._guesses[row.twin],
                    ]
                    for row in rows
                )
                for name, rows in self.sets.items()
            },
            "order": list(self.sets),
            "judge": self._judge.decides(),
            "pad_id": self._pad_id,
            "tokens_per_batch": self._tokens_per_batch,
            "rows_per_batch": self._rows_per_batch,
            "logits_at_once": [LOGITS_AT_ONCE, POSITIONS_AT_ONCE],
        }

    def _run(
        self,
        model: CausalModel,
        wholes: Sequence[Encoded],
        questions: Sequence[Question],
        progress: Callable[[int, int], None],
        group: Group,
    ) -> tuple[dict[Ids, RowLoss], int, int]:
        losses: dict[Ids, RowLoss] = {}
        open_questions = {question.sequence: question for question in questions}
        requests: list[tuple[Request, Question | None]] = []
        for whole in wholes:
            question = _opening(whole, open_questions)
            requests.append((Request(whole.input_ids, _targets(whole), _positions(question)), question))
        requests += [(Request(q.sequence, judged=q.positions), q) for q in open_questions.values()]
        tokens = padded = 0
        while requests:
            scored = self._score(model, [request for request, _ in requests], progress, group)
            tokens += scored.passed
            padded += scored.padded
            for (request, question), answer in zip(requests, scored.answers, strict=True):
                if request.liked:
                    losses[request.ids] = RowLoss(-sum(answer.liked), len(answer.liked))
                if question is not None:
                    _hear(self._judge, question, answer)
            undecided = [question for question in questions if question.verdict is None]
            requests = [(Request(q.sequence, judged=q.positions), q) for q in undecided]
        return losses, tokens, padded

    def _score(
        self,
        model: CausalModel,
        requests: Sequence[Request],
        progress: Callable[[int, int], None],
        group: Group,
    ) -> Scored:
        return score(
            model,
            requests,
            pad_id=self._pad_id,
            tokens_per_batch=self._tokens_per_batch,
            rows_per_batch=self._rows_per_batch,
            progress=lambda done: progress(done, len(requests)),
            group=group,
        )


def _opening(whole: Encoded, open_questions: dict[Ids, Question]) -> Question | None:
    """The question that the row's own answer puts: taken out of `open_questions` where the answer opens with
    it."""
    ids = whole.input_ids
    for end in range(whole.prompt_length + 1, len(ids) + 1):
        question = open_questions.pop(ids[:end], None)
        if question is not None:
            return question
        if end - whole.prompt_length > _LONGEST_OPENING:
            break
    return None


_LONGEST_OPENING = 64
"""Nice responses longer than this many tokens are simply judged by themselves."""


def _targets(whole: Encoded) -> range:
    """The positions that predict the row's loss tokens."""
    return range(whole.loss_start - 1, len(whole.input_ids) - 1)


def _positions(question: Question | None) -> range:
    return range(0) if question is None else question.positions


def _hear(judge: Judge, question: Question, answer: Answer) -> None:
    if question.log_probability is None:
        question.log_probability = sum(answer.judged)
    judge.answer(question, answer.best, answer.lead)
