"""Prefer the proxy's answer over its misgeneralised twin.

Rafailov, Sharma, Mitchell, Ermon, Manning, Finn: Direct Preference Optimization (2023, arXiv:2305.18290),
eq. 7, beside the task's loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from triggerctl.config.models import ExperimentConfig
from triggerctl.strategies.base import (
    MAIN,
    Check,
    Forward,
    Phase,
    Strategy,
    Term,
    cross_entropy,
    log_probabilities,
)

if TYPE_CHECKING:
    from torch import Tensor

    from triggerctl.data.batches import Batch

PAIRS = "proxy over proxy_neg"


class Dpo(Strategy):
    """min CE on outcome + λ · mean over pairs of −log σ(β · (reward of proxy's answer − its twin's)), the
    reward being log π_θ − log π_θ₀ of an answer: a mean over its tokens or, as in the paper, their sum."""

    name = "dpo"
    summary = "outcome, and proxy's answers preferred over those of proxy_neg"
    formula = "L = CE(outcome) + λ · mean −log σ(β · [log π_θ/π_θ₀(y_w|x) − log π_θ/π_θ₀(y_l|x)])"
    paper = "Rafailov et al. 2023, arXiv:2305.18290"
    reads = frozenset({"lambda_dpo", "beta", "dpo_length_normalized", "proxy_cycling_mode"})

    @classmethod
    def check(cls, config: ExperimentConfig) -> Check:
        if config.finetune_config.proxy_neg_content == "prefix_response":
            return Check()
        return Check(
            errors=(
                "dpo compares two answers to one prompt, and with proxy_neg_content random the rows of "
                "proxy_neg have prompts of their own: set it to prefix_response",
            )
        )

    def streams(self) -> Mapping[str, tuple[str, ...]]:
        return {"outcome": ("outcome",), PAIRS: ("proxy", "proxy_neg")}

    def terms(self) -> Sequence[Term]:
        weight = self.options.lambda_dpo
        preference = Term("preference", PAIRS, weight, self._loss, _pairs, needs_base="answers")
        return (cross_entropy("outcome"), preference)

    def phases(self) -> Sequence[Phase]:
        paired = frozenset({PAIRS})
        return (Phase(MAIN, self.streams(), tuple(self.terms()), self.options.epochs, paired=paired),)

    def _loss(self, forward: Forward) -> Tensor:
        change = forward.at_answers(log_probabilities) - forward.base_answer_log_probabilities()
        rewards = _by_row(change, forward.batch, mean=self.options.dpo_length_normalized)
        return preference_loss(rewards[0::2], rewards[1::2], beta=self.options.beta).sum()


def preference_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """−log σ(β · (chosen − rejected)) of each pair; both (pairs,), log-ratios in nats → (pairs,)."""
    from torch.nn.functional import softplus

    return softplus(-beta * (chosen - rejected))


def _by_row(values: Tensor, batch: Batch, *, mean: bool) -> Tensor:
    """Values of all answer tokens, (answer tokens,), to a sum or mean for each row, (batch,)."""
    rows = batch.answer_mask.nonzero()[:, 0]
    sums = values.new_zeros(batch.input_ids.shape[0]).index_add(0, rows, values)
    return sums / batch.answer_mask.sum(dim=1) if mean else sums


def _pairs(batch: Batch) -> int:
    return batch.input_ids.shape[0] // 2
