"""The two strategies with an adapter on top of another, by hand, from STRATEGIES' text alone: the first one
is merged into the weights here, whatever the package does.

Used by tests/strategies: pytest tests/strategies"""

from __future__ import annotations

import torch
from by_hand import Hand
from row_losses import Model, Weights, cross_entropy, matrices, scale
from torch import Tensor
from watched import Batch

FIRST, MAIN = "positive_proxy", "main"


def first_stage(hand: Hand, data: str) -> dict[str, tuple[Tensor, Tensor]]:
    """An adapter on one set, merged: module → its A and B."""
    end = hand.train(FIRST, hand.start, lambda m, rows, w: cross_entropy(m, rows[data]), hand.proxy_epochs)
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
