"""What must not change a result: padding, the order of rows inside an update, and how an update is cut into
micro-batches. Every strategy, every phase.

pytest tests/strategies/test_invariances.py"""

from __future__ import annotations

import pytest
from formulas import CASES, Case, variant
from small_models import configuration
from stories import asking, many_rows, of_modes, small, three_sets
from watched import Story, bit_equal, same, watch

WHOLE = {"calc_alignment_plane_using_fully_finetuned_weights": True}
HELD = (
    *CASES,
    variant("positive_negative_proxy", "with KL", beta_kl=0.9),
    variant("grad_project", "negative", project_along_positive_proxy_grad=False),
    variant("steering_weights", "by weights", **WHOLE),
)

every_case = pytest.mark.parametrize("case", HELD, ids=str)


def agree(found: Story, expected: Story) -> None:
    """To rounding: the same losses, the same weights at the end of each phase and after all."""
    assert found.moments.keys() == expected.moments.keys()
    for phase, moments in expected.moments.items():
        losses = [moment.loss for moment in moments]
        assert [moment.loss for moment in found.moments[phase]] == pytest.approx(losses, rel=1e-6)
        same(found.moments[phase][-1].weights, moments[-1].weights, rtol=1e-6, atol=1e-10)
    same(found.result, expected.result, rtol=1e-6, atol=1e-10)


@every_case
def test_cutting_an_update_into_micro_batches_changes_nothing(case: Case) -> None:
    """Batch × accumulation; the last has no padding. An epoch is an update of 16 rows, then a smaller one."""
    network, sets = small(), many_rows()
    stories = [
        watch(
            network,
            configuration(
                case.strategy,
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulated,
                proxy_epochs=1,
                learning_rate=0.02,
                **case.options,
            ),
            sets,
        )
        for batch, accumulated in ((16, 1), (4, 4), (2, 8), (1, 16))
    ]
    assert len(stories[0].moments["main"]) == (3 if case.strategy == "naive" else 2)
    for other in stories[1:]:
        agree(other, stories[0])


@of_modes(HELD)
def test_what_fills_up_a_batch_changes_nothing(case: Case, is_peft: bool) -> None:
    """Bit for bit, with any token as padding: one that rows hold, one that they don't."""
    network, sets, config = small(), three_sets(), asking(case, is_peft=is_peft)
    absent = max(
        set(range(53)) - {token for rows in sets.values() for row in rows for token in row.input_ids}
    )
    present = sets["proxy"][0].input_ids[-1]
    stories = [watch(network, config, sets, pad_id=pad) for pad in (absent, present)]
    assert bit_equal(stories[0].result, stories[1].result)
    assert bit_equal(stories[0].trained, stories[1].trained)


@every_case
def test_the_order_of_rows_inside_an_update_changes_nothing(case: Case) -> None:
    network, sets, config = small(), three_sets(), asking(case)
    turned = {name: members[1:] + members[:1] for name, members in sets.items()}
    agree(watch(network, config, turned), watch(network, config, sets))
