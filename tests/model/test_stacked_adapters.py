"""A second adapter on top of a frozen first one: what is trained, what is computed, what is saved.

pytest tests/model/test_stacked_adapters.py"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from chat_tokenizers import chat_tokenizer
from peft import PeftModel
from small_models import causal_model, configuration, copies, llama

from triggerctl.errors import InputError
from triggerctl.model import publish
from triggerctl.model.adapters import save_adapter
from triggerctl.model.causal import CausalModel

IDS = torch.arange(12).unsqueeze(0)


def logits(model: CausalModel) -> torch.Tensor:
    with model.evaluating():
        return model.logits(model.hidden(IDS))


@pytest.fixture(params=[True, False], ids=["rank-stabilised", "by rank"])
def model(request: pytest.FixtureRequest) -> CausalModel:
    return causal_model(llama(), configuration("naive", use_rslora=request.param).finetune_config)


def test_stacking_changes_nothing_yet_and_draws_a_fresh_adapter_by_its_seed(model: CausalModel) -> None:
    before, first = logits(model), copies(model.trainable)
    model.stack(seed=3)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-12)
    fresh = copies(model.trainable)
    assert fresh.keys() == first.keys()
    assert all(not weight.any() for name, weight in fresh.items() if ".lora_B." in name)
    assert all(not torch.equal(fresh[name], first[name]) for name in fresh)
    other = causal_model(llama(), configuration("naive").finetune_config)
    other.stack(seed=3)
    assert all(torch.equal(weight, fresh[name]) for name, weight in other.trainable.items())


def test_only_the_fresh_adapter_is_trained_and_the_first_stays_active(model: CausalModel) -> None:
    model.stack(seed=3)
    names = [name for name, weight in model.network.named_parameters() if weight.requires_grad]
    assert names
    assert all(".default." in name for name in names)
    kept = {name for name in model.own_weights if ".first." in name}
    assert len(kept) == len(names)
    with_first = logits(model)
    with torch.no_grad():
        for name, weight in model.own_weights.items():
            if ".first.weight" in name and ".lora_B." in name:
                weight.zero_()
    assert not torch.allclose(logits(model), with_first)


def test_with_the_adapters_off_it_is_the_checkpoint_and_the_first_stays_frozen_after(
    model: CausalModel,
) -> None:
    plain = llama()(input_ids=IDS).logits
    model.stack(seed=3)
    trained = list(model.trainable)
    with model.base():
        torch.testing.assert_close(logits(model), plain, rtol=0, atol=1e-12)
    assert list(model.trainable) == trained
    assert not torch.allclose(logits(model), plain)


def test_two_adapters_are_saved_as_one_that_is_the_same_model(model: CausalModel, tmp_path: Path) -> None:
    model.stack(seed=3)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.trainable.values():
            weight.add_(torch.randn(weight.shape, generator=draw, dtype=weight.dtype) * 0.1)
    expected = logits(model)
    assert model.adapter is not None
    save_adapter(model.adapter, tmp_path)
    again = PeftModel.from_pretrained(llama(), str(tmp_path), autocast_adapter_dtype=False)
    again.eval()
    with torch.no_grad():
        found = again(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_what_is_pushed_holds_both_adapters(model: CausalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.stack(seed=3)
    with torch.no_grad():
        for weight in model.own_weights.values():
            weight.normal_(generator=torch.Generator().manual_seed(5))
    pushed: dict[str, torch.Tensor] = {}

    def take(*, repo_id: str, folder_path: Path) -> None:
        assert repo_id == "me/mine"
        base = llama()
        found = CausalModel(base, PeftModel.from_pretrained(base, folder_path))
        pushed["logits"] = logits(found)

    monkeypatch.setattr(publish, "create_repo", lambda *_, **__: None)
    monkeypatch.setattr(publish, "upload_folder", take)
    publish.publish(model, chat_tokenizer("chatml", pad="</s>"), "me/mine", private=True, merged=False)
    torch.testing.assert_close(pushed["logits"], logits(model), rtol=1e-4, atol=1e-4)


def test_an_adapter_of_an_embedding_is_not_stacked() -> None:
    model = causal_model(
        llama(), configuration("naive", target_modules=["q_proj", "embed_tokens"]).finetune_config
    )
    with pytest.raises(InputError, match="embedding"):
        model.stack(seed=3)
