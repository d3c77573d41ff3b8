"""log p(token) and its gradient are autograd's own. Run: pytest tests/model/test_log_likelihood.py"""

from __future__ import annotations

import pytest
import torch

from triggerctl.model.log_likelihood import target_log_probabilities

POSITIONS, VOCABULARY = 7, 50


@pytest.mark.parametrize("spread", [1.0, 300.0], ids=["likely", "of no probability at all in float32"])
def test_value_and_gradient_are_autograd_s_own(spread: float) -> None:
    generator = torch.Generator().manual_seed(5)
    logits = spread * torch.randn(POSITIONS, VOCABULARY, dtype=torch.float64, generator=generator)
    logits.requires_grad_()
    targets = torch.randint(VOCABULARY, (POSITIONS,), generator=generator)
    weights = torch.randn(POSITIONS, dtype=torch.float64, generator=generator)
    expected = logits.log_softmax(-1)[torch.arange(POSITIONS), targets]
    found = target_log_probabilities(logits, targets)
    assert torch.equal(found, expected)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), logits)
    (ours,) = torch.autograd.grad((found * weights).sum(), logits, retain_graph=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)
    (again,) = torch.autograd.grad((found * weights).sum(), logits)
    assert torch.equal(again, ours)
    single = target_log_probabilities(logits.detach().float(), targets)
    torch.testing.assert_close(single.double(), expected.detach(), rtol=1e-5, atol=1e-5)
