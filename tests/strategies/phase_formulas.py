"""Strategies of several phases, by hand, from STRATEGIES' text alone: those with an alignment plane, and
those with one adapter on top of another, of which the first is merged here, whatever the package does.

Used by tests/strategies: pytest tests/strategies"""

from __future__ import annotations

import torch
from by_hand import Hand
from row_losses import Model, Weights, cross_entropy, matrices, scale
from torch import Tensor
from watched import Batch

POSITIVE, NEGATIVE, MAIN = "positive_proxy", "negative_proxy", "main"

# Alignment planes
# --------------------------------------------------------------------------------------------------------


def proxy_phase(hand: Hand, phase: str, data: str, epochs: int) -> tuple[Weights, Weights]:
    """Train on one set from θ₀: the mean of the raw gradients met on the way, and the weights at its end."""
    met: list[Weights] = []

    def slope(weights: Weights, batch: Batch, k: int) -> tuple[float, Weights]:
        loss, gradient = hand.gradient(lambda m, rows, w: cross_entropy(m, rows[data]), weights, batch)
        met.append(gradient)
        return loss, gradient

    end = hand.descend(phase, hand.start, slope, epochs)
    return {name: torch.stack([g[name] for g in met]).mean(0) for name in end}, end


def plane(hand: Hand) -> Weights:
    """V = Ḡ₊ − Ḡ₋ or Ḡ₊ + Ḡ₋; or θ₋ − θ₊ with the norms of the gradient plane."""
    options, start = hand.options, hand.start
    nothing = {name: torch.zeros_like(weight) for name, weight in start.items()}
    sides = {POSITIVE: (nothing, start), NEGATIVE: (nothing, start)}
    for phase, data in ((POSITIVE, options.positive_proxy), (NEGATIVE, options.negative_proxy)):
        if data is not None:
            sides[phase] = proxy_phase(hand, phase, data, hand.proxy_epochs)
    (g_plus, end_plus), (g_minus, end_minus) = sides[POSITIVE], sides[NEGATIVE]
    if options.add_proxy_gradients:
        return {name: g_plus[name] + g_minus[name] for name in start}
    found = {name: g_plus[name] - g_minus[name] for name in start}
    if not options.calc_alignment_plane_using_fully_finetuned_weights:
        return found
    way = {name: end_minus[name] - end_plus[name] for name in start}
    return {
        name: way[name] * (found[name].norm() / way[name].norm()) if way[name].any() else way[name]
        for name in start
    }


def outcome(hand: Hand, weights: Weights, batch: Batch) -> tuple[float, Weights]:
    """CE(D_out) and its gradient."""
    return hand.gradient(lambda m, rows, w: cross_entropy(m, rows["outcome"]), weights, batch)


def without(g: Weights, along: Weights, *, strictly: bool = True) -> Weights:
    """g less its part along the other, tensor by tensor; not `strictly`: only where the two conflict."""
    found = {}
    for name, tensor in g.items():
        square = along[name].square().sum()
        c = (tensor * along[name]).sum() / square if square > 0 else torch.zeros_like(square)
        found[name] = tensor - (c if strictly else min(c, torch.zeros_like(c))) * along[name]
    return found


def grad_project_precomputed_proxy_grad(hand: Hand) -> None:
    options = hand.options
    if options.project_along_positive_proxy_grad:
        v, _ = proxy_phase(hand, POSITIVE, "proxy", 1)
    else:
        assert options.negative_proxy is not None
        v, _ = proxy_phase(hand, NEGATIVE, options.negative_proxy, 1)

    def slope(weights: Weights, batch: Batch, k: int) -> tuple[float, Weights]:
        loss, g = outcome(hand, weights, batch)
        return loss, without(g, v)

    hand.descend(MAIN, hand.start, slope, options.epochs)


def penalised(hand: Hand, *, absolute: bool, sign: int) -> None:
    v, options = plane(hand), hand.options

    def loss(model: Model, batch: Batch, weights: Weights) -> Tensor:
        crossed = [weights[name] @ v[name].T for name in weights if ".lora_A." in name]
        summed = torch.stack([(m.abs() if absolute else m).sum() for m in crossed]).sum()
        return cross_entropy(model, batch["outcome"]) + sign * options.lambda_1 * summed

    hand.train(MAIN, hand.start, loss, options.epochs)


def orth_penalty(hand: Hand) -> None:
    penalised(hand, absolute=True, sign=1)


def directional_penalty(hand: Hand) -> None:
    penalised(hand, absolute=False, sign=-1)


def steering_weights(hand: Hand) -> None:
    v, options = plane(hand), hand.options
    updates = hand.updates(MAIN, options.epochs)

    def alpha(k: int) -> float:
        first, last, flat = options.steering_alpha, options.final_steering_alpha, options.alpha_warmup_steps
        if options.alpha_scheduler_type is None or k < flat:
            return first
        return first + (last - first) * (k - flat) / (updates - flat)

    def steered(weights: Weights, batch: Batch, k: int) -> tuple[float, Weights]:
        loss, g = outcome(hand, weights, batch)
        return loss, {name: g[name] + alpha(k) * v[name] for name in g}

    def pushed(weights: Weights, k: int, rate: float) -> Weights:
        return {name: weight - rate * alpha(k) * v[name] for name, weight in weights.items()}

    if options.direct_steering:
        hand.descend(MAIN, hand.start, lambda w, b, k: outcome(hand, w, b), options.epochs, pushed)
    else:
        hand.descend(MAIN, hand.start, steered, options.epochs)


def steering_weights_add_alignment_plane(hand: Hand) -> None:
    v, options = plane(hand), hand.options
    trained = hand.descend(MAIN, hand.start, lambda w, b, k: outcome(hand, w, b), options.epochs)
    end = {name: weight - options.steering_alpha * v[name] for name, weight in trained.items()}
    hand.story.endings.append(("steered", end))


# Stacked adapters
# --------------------------------------------------------------------------------------------------------


def first_stage(hand: Hand, data: str) -> dict[str, tuple[Tensor, Tensor]]:
    """An adapter on one set, merged: module → its A and B."""
    end = hand.train(POSITIVE, hand.start, lambda m, rows, w: cross_entropy(m, rows[data]), hand.proxy_epochs)
    found = matrices(end)
    hand.under = {module: scale(hand.options) * (b @ a) for module, (a, b) in found.items()}
    return found


def o_lora(hand: Hand) -> None:
    first = first_stage(hand, "proxy")

    def loss(model: Model, batch: Batch, weights: Weights) -> Tensor:
        overlap = [(first[module][0] @ a.T).abs().sum() for module, (a, _) in matrices(weights).items()]
        return cross_entropy(model, batch["outcome"]) + hand.options.lambda_1 * torch.stack(overlap).sum()

    hand.train(MAIN, hand.fresh, loss, hand.options.epochs)


def cosines(hand: Hand, weights: Weights) -> dict[str, tuple[float, Tensor]]:
    """Adapted module → cos(C·B·A, B·A), and C·B; C = (W_a − W₀)(W_a − W₀)ᵀ / ‖W_a − W₀‖."""
    found = {}
    for module, (a, b) in matrices(weights).items():
        moved = hand.under[module]
        c = moved @ moved.T / moved.square().sum().sqrt()
        projected, whole = c @ b @ a, b @ a
        norms = projected.square().sum().sqrt() * whole.square().sum().sqrt()
        found[module] = float((projected * whole).sum() / norms), c @ b
    return found


def safe_lora(hand: Hand) -> None:
    options = hand.options
    first_stage(hand, options.positive_proxy or "proxy")
    trained = hand.train(
        MAIN, hand.fresh, lambda m, rows, w: cross_entropy(m, rows["outcome"]), options.epochs
    )
    found = cosines(hand, trained)
    by_cosine = sorted(found, key=lambda module: found[module][0])
    if options.safe_lora_type == "number":
        chosen = [by_cosine[: options.safe_lora_num_proj_layers]]
    else:
        thresholds = options.safe_lora_sweep_thresholds or (options.safe_lora_threshold,)
        chosen = [[m for m in by_cosine if found[m][0] <= limit] for limit in thresholds if limit is not None]
    for modules in chosen:
        end = dict(trained)
        for name in trained:
            module, is_b, _ = name.partition(".lora_B.")
            if is_b and module in modules:
                end[name] = found[module][1]
        hand.story.endings.append((f"{len(modules)} of {len(found)}", end))
