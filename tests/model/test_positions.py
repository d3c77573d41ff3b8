"""Values of positions taken piece by piece equal those taken at once, gradients included.

pytest tests/model/test_positions.py"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_models import VOCABULARY, causal_model, configuration, llama
from torch import Tensor

from triggerctl.model import positions
from triggerctl.model.causal import CausalModel
from triggerctl.model.positions import per_position
from triggerctl.model.products import round_number

IDS = torch.arange(3 * 11).reshape(3, 11).remainder(VOCABULARY)


def value(logits: Tensor, weights: Tensor) -> Tensor:
    """Far from linear in the logits, and different at each position."""
    return logits.log_softmax(-1).square().sum(-1).sqrt() * weights


def values_and_gradients(
    model: CausalModel, of: Callable[..., Tensor] = value
) -> tuple[Tensor, dict[str, Tensor]]:
    hidden = model.hidden(IDS)[:, 1:].reshape(30, -1)
    found = per_position(model, hidden, of, torch.linspace(-1, 2, 30, dtype=torch.float64))
    (found * torch.linspace(1, 3, 30, dtype=torch.float64)).sum().backward()
    gradients = {name: w.grad.clone() for name, w in model.trainable.items() if w.grad is not None}
    for weight in model.trainable.values():
        weight.grad = None
    return found.detach(), gradients


@pytest.mark.parametrize("at_once", [1, 4, 29], ids=lambda n: f"{n} at once")
@pytest.mark.parametrize("kind", ["lora", "full", "lora on the head"])
def test_pieces_give_the_same_values_and_gradients(
    kind: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = ("q_proj", "lm_head") if kind == "lora on the head" else ("q_proj", "down_proj")
    options = configuration("naive", is_peft=kind != "full", target_modules=targets).finetune_config
    model = causal_model(llama(tied=kind == "full"), options)
    assert model.splits
    expected, gradients = values_and_gradients(model)
    monkeypatch.setitem(positions.LOGITS_AT_ONCE, "cpu", at_once * VOCABULARY)
    found, in_pieces = values_and_gradients(model)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert in_pieces.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(in_pieces[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("at_once", [1000, 12], ids=lambda n: f"{n} at once")
@pytest.mark.parametrize("kind", ["lora", "full", "lora on the head"])
def test_filler_is_of_no_position(kind: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = ("q_proj", "lm_head") if kind == "lora on the head" else ("q_proj", "down_proj")
    options = configuration("naive", is_peft=kind != "full", target_modules=targets).finetune_config
    model = causal_model(llama(tied=kind == "full"), options)
    monkeypatch.setitem(positions.LOGITS_AT_ONCE, "cpu", at_once * VOCABULARY)
    expected, gradients = values_and_gradients(model)
    seen = []

    def watched(logits: Tensor, weights: Tensor) -> Tensor:
        seen.append(logits.shape[0])
        assert weights.shape == logits.shape[:1]
        return value(logits, weights)

    model.rounded = round_number
    found, filled = values_and_gradients(model, watched)
    assert sum(seen) >= 32
    assert found.shape == (30,)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for name, gradient in gradients.items():
        torch.testing.assert_close(filled[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_no_piece_holds_more_logits_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = causal_model(llama(), configuration("naive").finetune_config)
    monkeypatch.setitem(positions.LOGITS_AT_ONCE, "cpu", 4 * VOCABULARY)
    seen = []

    def watch(logits: Tensor) -> Tensor:
        seen.append(logits.shape[0])
        return logits.sum(-1)

    per_position(model, model.hidden(IDS).reshape(33, -1), watch)
    assert seen == [4] * 8 + [1]


def test_without_gradients_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = causal_model(llama(), configuration("naive").finetune_config)
    monkeypatch.setitem(positions.LOGITS_AT_ONCE, "cpu", VOCABULARY)
    with model.evaluating():
        found = per_position(model, model.hidden(IDS).reshape(33, -1), lambda logits: logits.sum(-1))
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("vocabulary", "expected"), [(1_000, 512), (49_152, 170), (10**8, 1)], ids=["few", "many", "absurd"]
)
def test_a_cpus_pieces_are_of_few_logits_and_of_few_positions(vocabulary: int, expected: int) -> None:
    model = causal_model(llama(), configuration("naive").finetune_config)
    model.network.config.vocab_size = vocabulary
    assert positions.at_once(model) == expected
