"""Claims about strategies that rewrite gradients or weights: projection, on conflict or always, and steering.

pytest tests/strategies/test_gradients.py"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from by_hand import Hand
from formulas import variant
from phase_formulas import MAIN, NEGATIVE, POSITIVE, outcome
from row_losses import Weights, cross_entropy
from stories import asking, small, three_sets
from watched import Story, bit_equal, same, watch

PRECOMPUTED = "grad_project_precomputed_proxy_grad"

lora_or_full = pytest.mark.parametrize("is_peft", [True, False], ids=["lora", "full"])


def told(strategy: str, **options: Any) -> tuple[Story, Hand]:
    """By the package; and a hand to compute other gradients with."""
    config, network, sets = asking(variant(strategy, "", **options)), small(), three_sets()
    found = watch(network, config, sets)
    return found, Hand(network, config, sets, found.starts)


def cosines(one: Weights, other: Weights) -> dict[str, float]:
    """Tensor by tensor."""
    return {
        name: float((one[name] * other[name]).sum() / (one[name].norm() * other[name].norm())) for name in one
    }


def task_gradients(found: Story, hand: Hand) -> list[Weights]:
    """∇CE(D_out) where each update of the main phase began."""
    begun = [found.starts[MAIN], *(moment.weights for moment in found.moments[MAIN][:-1])]
    return [outcome(hand, weights, hand.everything)[1] for weights in begun]


def plane(found: Story) -> Weights:
    """Ḡ₊ − Ḡ₋ of gradients that were not clipped."""
    sides = [[moment.gradient for moment in found.moments.get(phase, [])] for phase in (POSITIVE, NEGATIVE)]
    plus, minus = sides
    return {
        name: torch.stack([g[name] for g in plus]).mean(0) - torch.stack([g[name] for g in minus]).mean(0)
        for name in plus[0]
    }


# Projection
# --------------------------------------------------------------------------------------------------------


@lora_or_full
@pytest.mark.parametrize(("along_positive", "data", "sign"), [(True, "proxy", 1), (False, "proxy_neg", -1)])
@pytest.mark.parametrize("strictly", [True, False], ids=["strictly", "on conflict"])
def test_projection_takes_out_what_it_says_tensor_by_tensor(
    strictly: bool, along_positive: bool, data: str, sign: int, is_peft: bool
) -> None:
    found, hand = told(
        "grad_project",
        is_peft=is_peft,
        project_along_positive_proxy_grad=along_positive,
        project_strictly_orthogonal=strictly,
    )
    [task, *_] = task_gradients(found, hand)
    other = hand.gradient(
        lambda m, rows, w: sign * cross_entropy(m, rows[data]), hand.start, hand.everything
    )[1]
    got = found.moments[MAIN][0].gradient
    before, after = cosines(task, other), cosines(got, other)
    agreeing = {name for name, cosine in before.items() if cosine > 0}
    assert agreeing
    assert agreeing != before.keys()
    for name, cosine in before.items():
        if strictly or name not in agreeing:
            assert after[name] == pytest.approx(0, abs=1e-7)
            left = task[name].norm() * (1 - cosine**2) ** 0.5
            torch.testing.assert_close(got[name].norm(), left)
        else:
            torch.testing.assert_close(got[name], task[name], rtol=1e-9, atol=1e-12)


@lora_or_full
@pytest.mark.parametrize(
    "side", [{}, {"project_along_positive_proxy_grad": False, "negative_proxy": "proxy_neg"}], ids=["+", "-"]
)
def test_every_update_is_orthogonal_to_the_plane_of_one_proxy_epoch(
    side: dict[str, Any], is_peft: bool
) -> None:
    found, hand = told(PRECOMPUTED, is_peft=is_peft, proxy_epochs=5, **side)
    phase = NEGATIVE if side else POSITIVE
    assert set(found.moments) == {phase, MAIN}
    [met] = found.moments[phase]
    for moment, task in zip(found.moments[MAIN], task_gradients(found, hand), strict=True):
        assert all(abs(cosine) < 1e-7 for cosine in cosines(moment.gradient, met.gradient).values())
        assert any(abs(cosine) > 1e-2 for cosine in cosines(task, met.gradient).values())


@pytest.mark.parametrize(
    "unread",
    [
        {"project_strictly_orthogonal": False},
        {"negative_proxy": "proxy_neg"},
        {"positive_proxy": "outcome"},
        {"calc_alignment_plane_using_fully_finetuned_weights": True},
        {"proxy_epochs": 7},
    ],
    ids=lambda options: next(iter(options)),
)
def test_the_precomputed_projection_reads_one_proxy_and_no_more(unread: dict[str, Any]) -> None:
    plain, other = told(PRECOMPUTED)[0], told(PRECOMPUTED, **unread)[0]
    assert bit_equal(plain.result, other.result)


# Steering
# --------------------------------------------------------------------------------------------------------


def test_steering_adds_alpha_v_to_every_gradient() -> None:
    found, hand = told("steering_weights")
    v = plane(found)
    for moment, task in zip(found.moments[MAIN], task_gradients(found, hand), strict=True):
        expected = {name: task[name] + 0.8 * v[name] for name in v}
        same(moment.gradient, expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(
    ("flat", "expected"),
    [(0, [0.8, 0.65, 0.5, 0.35]), (1, [0.8, 0.8, 0.6, 0.4]), (3, [0.8] * 4), (9, [0.8] * 4)],
)
@pytest.mark.parametrize("direct", [False, True], ids=["gradient", "direct"])
def test_alpha_falls_in_a_line_after_its_warm_up(flat: int, expected: list[float], direct: bool) -> None:
    """From 0.8 towards 0.2, which the update after the last would have; read from what each update did."""
    linear = {"alpha_scheduler_type": "linear", "final_steering_alpha": 0.2, "alpha_warmup_steps": flat}
    found, hand = told("steering_weights", epochs=4, direct_steering=direct, **linear)
    v = plane(found)
    whole = sum(float(tensor.square().sum()) for tensor in v.values())
    weights, alphas = found.starts[MAIN], []
    for moment, task in zip(found.moments[MAIN], task_gradients(found, hand), strict=True):
        beside = {name: (weights[name] - moment.weights[name]) / moment.rate - task[name] for name in v}
        alphas.append(sum(float((beside[name] * v[name]).sum()) for name in v) / whole)
        weights = moment.weights
    assert alphas == pytest.approx(expected, rel=1e-7)


def test_under_plain_descent_both_kinds_of_steering_are_one_and_under_adamw_two() -> None:
    plain, direct = (told("steering_weights", direct_steering=kind)[0] for kind in (False, True))
    same(direct.result, plain.result, rtol=1e-9, atol=1e-12)
    adamw = {"optim": "adamw_torch"}
    plain, direct = (told("steering_weights", direct_steering=kind, **adamw)[0] for kind in (False, True))
    assert any(not torch.allclose(direct.result[n], w, rtol=1e-2) for n, w in plain.result.items())


def test_direct_steering_leaves_the_gradient_alone_and_goes_by_the_scheduled_rate() -> None:
    options = {"optim": "adamw_torch", "lr_scheduler_type": "linear", "warmup_steps": 1}
    found, hand = told("steering_weights", direct_steering=True, **options)
    for moment, task in zip(found.moments[MAIN], task_gradients(found, hand), strict=True):
        same(moment.gradient, task, rtol=1e-8, atol=1e-11)
    first, *_ = found.moments[MAIN]
    assert first.rate == 0
    assert bit_equal(first.weights, found.starts[MAIN])


def test_steering_at_the_end_is_plain_training_and_one_move() -> None:
    found, _ = told("steering_weights_add_alignment_plane")
    plain, _ = told("outcome_only")
    v = plane(found)
    assert bit_equal(found.trained, plain.trained)
    [(_, end)] = found.endings
    same(end, {name: found.trained[name] - 0.8 * v[name] for name in v}, rtol=1e-9, atol=1e-12)


# Penalties
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["orth_penalty", "directional_penalty"])
def test_a_penalty_pulls_at_a_alone_and_weighs_lambda(strategy: str) -> None:
    """What the gradient has beside the task's is λ times one matrix for each A, and nothing for B."""
    found, hand = told(strategy)
    v, weights = plane(found), found.starts[MAIN]
    [task, *_], moment = task_gradients(found, hand), found.moments[MAIN][0]
    for name, tensor in moment.gradient.items():
        beside = tensor - task[name]
        if ".lora_B." in name:
            torch.testing.assert_close(beside, torch.zeros_like(beside), rtol=0, atol=1e-12)
            continue
        # d/dA Σ|A·Vᵀ| = sign(A·Vᵀ)·V, and −d/dA ΣA·Vᵀ = −1·V, 1 a matrix of ones.
        crossed = weights[name] @ v[name].T
        signs = crossed.sign() if strategy == "orth_penalty" else -torch.ones_like(crossed)
        torch.testing.assert_close(beside, 0.6 * signs @ v[name], rtol=1e-8, atol=1e-11)


def test_the_penalties_do_what_their_names_say() -> None:
    """One makes Σ|A·Vᵀ| smaller than without it, the other ΣA·Vᵀ larger."""

    def crossed(strategy: str, weight: float) -> torch.Tensor:
        found, _ = told(strategy, lambda_1=weight, epochs=6)
        v = plane(found)
        products = [found.result[name] @ v[name].T for name in v if ".lora_A." in name]
        return torch.stack(products)

    assert crossed("orth_penalty", 2.0).abs().sum() < crossed("orth_penalty", 0.0).abs().sum()
    assert crossed("directional_penalty", 2.0).sum() > crossed("directional_penalty", 0.0).sum()
