"""Claims about single terms of losses: cross-entropy, KL, representations; and that θ₀ answers without
dropout whatever the model in training does. Preferences: test_dpo.py.

pytest tests/strategies/test_terms.py"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from by_hand import Hand
from formulas import Case, case_of, variant
from row_losses import Model, cross_entropy, drift, reverse_kl
from small_models import causal_model, configuration, rows
from stories import agree, asking, first, live_and_base, of_modes, small, term, three_sets, told_twice
from watched import bit_equal, watch

from triggerctl.data.encoding import Encoded

# Cross-entropy
# --------------------------------------------------------------------------------------------------------


def test_cross_entropy_is_a_token_mean_never_a_mean_of_means() -> None:
    sets = three_sets()
    config = configuration("outcome_only", per_device_train_batch_size=1, gradient_accumulation_steps=64)
    model, _ = live_and_base(config)
    each = [float(cross_entropy(model, [row])) for row in sets["outcome"]]
    found = first(config, sets).loss
    assert found == pytest.approx(float(cross_entropy(model, sets["outcome"])), rel=1e-10)
    assert found != pytest.approx(sum(each) / len(each), rel=1e-3)


def test_naive_is_one_mean_over_the_union_of_both_sets() -> None:
    """Not the mean of two means: a short set weighs what its tokens weigh."""
    config, sets = configuration("naive"), three_sets()
    model, _ = live_and_base(config)
    parts = [cross_entropy(model, sets[name]) for name in ("outcome", "proxy")]
    found = first(config, sets).loss
    assert found == pytest.approx(float(cross_entropy(model, [*sets["outcome"], *sets["proxy"]])), rel=1e-10)
    assert found != pytest.approx(float(sum(parts) / 2), rel=1e-3)


# positive_negative_proxy
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta_kl", [0.0, 0.9])
@pytest.mark.parametrize("is_peft", [True, False], ids=["lora", "full"])
def test_the_unwanted_rows_may_be_of_another_kind(is_peft: bool, beta_kl: float) -> None:
    """As with proxy_neg_content = "random": other prompts, other lengths, another number of rows."""
    sets = {**three_sets(), "proxy_neg": rows((2, 11, 4, 4, 7), seed=9, first=100)}
    case = variant("positive_negative_proxy", "", beta_kl=beta_kl)
    agree(*told_twice(case, small(), asking(case, is_peft=is_peft), sets))


def test_the_unwanted_rows_are_pushed_away_from() -> None:
    config = configuration("positive_negative_proxy", lambda_proxy=0.0, neg_lambda_proxy=0.9, epochs=6)
    found = watch(small(), config, three_sets()).moments["main"]
    values = [moment.terms["cross-entropy on proxy_neg"] for moment in found]
    assert values == sorted(values)
    assert values[-1] > values[0]


# KL
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["kl_divergence", "representation_constraint"])
def test_the_distance_to_the_base_is_zero_when_the_adapter_is_zero_and_not_when_it_is_not(
    strategy: str,
) -> None:
    config, sets = configuration(strategy, beta_kl=1.0), three_sets()
    assert term(first(config, sets, moved=False)) == pytest.approx(0, abs=1e-12)
    assert term(first(config, sets)) > 1e-3


def test_kl_counts_every_token_of_a_row_prompt_and_last_place_included() -> None:
    """A KL over the answer only, or without the last place, or of means, is another number here."""
    config, sets = configuration("kl_divergence", beta_kl=1.0), three_sets()
    model, base = live_and_base(config)
    whole, without_last, answer = [], [], []
    for row in sets["proxy"]:
        p, q = model.logits(row).log_softmax(-1), base.logits(row).log_softmax(-1)
        values = (p.exp() * (p - q)).sum(-1).tolist()
        whole.append(values)
        without_last += values[:-1]
        answer += values[row.prompt_length - 1 :]
    found = term(first(config, sets))
    assert found == pytest.approx(float(reverse_kl(model, base, sets["proxy"])), rel=1e-10)
    assert found == pytest.approx(mean([value for values in whole for value in values]), rel=1e-10)
    for other in (mean(without_last), mean(answer), mean([mean(values) for values in whole])):
        assert found != pytest.approx(other, rel=1e-3)


def test_kl_has_the_trained_model_first() -> None:
    config, sets = configuration("kl_divergence", beta_kl=1.0), three_sets()
    model, base = live_and_base(config)
    assert term(first(config, sets)) != pytest.approx(float(reverse_kl(base, model, sets["proxy"])), rel=1e-3)


@pytest.mark.parametrize("case", [case_of("kl_divergence"), case_of("representation_constraint")], ids=str)
def test_what_holds_to_the_base_does_not_train_on_the_answers_of_proxy(case: Case) -> None:
    """Only proxy's ids reach the loss, not which of them are targets."""
    network, sets, config = small(), three_sets(), asking(case)
    changed = [replace(row, prompt_length=1, loss_start=len(row.input_ids) - 1) for row in sets["proxy"]]
    found, other = watch(network, config, {**sets, "proxy": changed}), watch(network, config, sets)
    assert bit_equal(found.result, other.result)


# representation_constraint
# --------------------------------------------------------------------------------------------------------


def test_the_drift_is_summed_over_layers_and_averaged_over_tokens() -> None:
    """Half of it over two layers, or a mean of the rows' means, is another number here."""
    config, sets = configuration("representation_constraint", beta_kl=1.0), three_sets()
    model, base = live_and_base(config)
    whole = float(drift(model, base, sets["proxy"]))
    found = term(first(config, sets))
    assert found == pytest.approx(whole, rel=1e-10)
    assert found != pytest.approx(whole / 2, rel=1e-3)
    assert found != pytest.approx(mean([float(drift(model, base, [r])) for r in sets["proxy"]]), rel=1e-3)


# Dropout
# --------------------------------------------------------------------------------------------------------


class AsItWas(Model):
    """The model in training as it was in one update, dropout and all: what its layers said, by row."""

    def __init__(
        self, seen: Sequence[tuple[torch.Tensor, Any]], head: torch.Tensor, members: list[Encoded]
    ) -> None:
        self._found = {}
        for ids, said in seen:
            for line, place in zip(ids.tolist(), range(len(ids)), strict=True):
                fitting = [row for row in members if tuple(line[: len(row.input_ids)]) == row.input_ids]
                row = max(fitting, key=lambda row: len(row.input_ids))
                length = len(row.input_ids)
                logits = (said.last_hidden_state[place, :length] @ head.T).detach()
                layers = tuple(layer[place, :length].detach() for layer in said.hidden_states or ())
                self._found[row.input_ids] = logits, layers[1:]


HELD_TO_THE_BASE = [
    case_of("kl_divergence"),
    case_of("representation_constraint"),
    case_of("dpo"),
    variant("dpo", "sum", dpo_length_normalized=False),
    variant("positive_negative_proxy", "with KL", beta_kl=0.9),
]


@of_modes(HELD_TO_THE_BASE)
def test_the_base_answers_without_dropout(case: Case, is_peft: bool) -> None:
    """The model in training drops attention and adapter inputs; what it said, recorded as it was, is held
    against a base that drops nothing."""
    network, sets = small(attention_dropout=0.3).eval(), three_sets()
    config = asking(case, is_peft=is_peft, lora_dropout=0.3 if is_peft else 0.0, epochs=1)
    # Row beside row, as the recorder below reads them.
    model = causal_model(network, config.finetune_config, packs=False)
    seen: list[tuple[torch.Tensor, Any]] = []

    def record(module: torch.nn.Module, args: Any, kwargs: dict[str, Any], said: Any) -> None:
        if torch.is_grad_enabled():
            seen.append((kwargs["input_ids"], said))

    model.network.base_model.register_forward_hook(record, with_kwargs=True)
    found = watch(network, config, sets, model=model)

    class Replayed(Hand):
        def model(self, weights: Any) -> Model:
            members = [row for each in sets.values() for row in each]
            return AsItWas(seen, network.get_output_embeddings().weight.detach(), members)

    hand = Replayed(network, config, sets, found.starts)
    case.formula(hand)
    assert found.moments["main"][0].loss == pytest.approx(hand.story.moments["main"][0].loss, rel=1e-9)
    nothing_dropped = asking(case, is_peft=is_peft, epochs=1)
    without = watch(small(), nothing_dropped, sets).moments["main"][0].loss
    assert found.moments["main"][0].loss != pytest.approx(without, rel=1e-4)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
