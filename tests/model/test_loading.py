"""Models from folders and from the package, in which format, with which adapter, and what goes wrong.

pytest tests/model/test_loading.py"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import causal_model, configuration, copies, llama

from triggerctl import disk
from triggerctl.config.models import FinetuneConfig
from triggerctl.errors import InputError
from triggerctl.model import load
from triggerctl.model.adapters import adapter_size, attach_adapter, save_adapter, target_modules
from triggerctl.model.causal import CausalModel
from triggerctl.model.device import resolve_device, resolve_dtype
from triggerctl.model.identity import identify
from triggerctl.model.load import ModelFiles, load_checkpoint, load_tokenizer, locate
from triggerctl.model.products import is_quick
from triggerctl.model.publish import save_whole_model
from triggerctl.model.quantise import probe

CPU = torch.device("cpu")


def options(**values: object) -> FinetuneConfig:
    return FinetuneConfig.model_validate({"model": "builtin:tiny", **values})


def test_a_folder_is_loaded_in_the_format_asked_for(tiny_model: Path) -> None:
    identity = identify(str(tiny_model), revision=None, relative_to=tiny_model.parent)
    assert identity.kind == "folder"
    files = locate(identity, options())
    for dtype in (torch.float32, torch.bfloat16):
        network = load_checkpoint(files, options(), CPU, dtype)
        assert {weight.dtype for weight in network.parameters()} == {dtype}
    assert load_tokenizer(files, options()).chat_template


@pytest.mark.parametrize("faster", [True, False])
def test_onednn_is_for_models_in_float32_where_it_is_faster(
    faster: bool, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "prefers_onednn", lambda: faster)
    files = locate(identify(str(tiny_model), revision=None, relative_to=tiny_model.parent), options())
    assert is_quick(load_checkpoint(files, options(), CPU, torch.float32)) is faster
    assert not is_quick(load_checkpoint(files, options(), CPU, torch.bfloat16))


def test_a_folder_is_known_by_its_content_not_its_name(tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(tiny_model, copy)
    one, two = (identify(str(f), revision=None, relative_to=tmp_path).fingerprint for f in (tiny_model, copy))
    assert one == two
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert identify(str(copy), revision=None, relative_to=tmp_path).fingerprint != one


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_cache_that_fails_does_not_keep_a_folder_from_being_known(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    known = identify(str(tiny_model), revision=None, relative_to=tmp_path)

    def fails(kind: disk.Kind, path: disk.FilePath, content: bytes) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(disk, "observer", fails)
    assert identify(str(tiny_model), revision=None, relative_to=tmp_path) == known
    monkeypatch.setenv("TRIGGERCTL_CACHE", str(tmp_path / "another"))
    assert identify(str(tiny_model), revision=None, relative_to=tmp_path) == known


def test_the_embedded_model_loads_without_network() -> None:
    identity = identify("builtin:tiny", revision=None, relative_to=Path())
    assert identity.kind == "builtin"
    network = load_checkpoint(locate(identity, options()), options(), CPU, torch.float32)
    assert sum(weight.numel() for weight in network.parameters()) < 10_000_000


def test_an_embedded_model_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(InputError, match="builtin:tiny"):
        identify("builtin:huge", revision=None, relative_to=Path())


@pytest.mark.parametrize("name", ["../no/such/folder", "a/b/c", "no such model"])
def test_a_name_that_is_neither_folder_nor_hub_id_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"finetune_config\.model"):
        identify(name, revision=None, relative_to=tmp_path)


def test_a_folder_without_a_configuration_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        identify(str(tmp_path), revision=None, relative_to=tmp_path)


@pytest.mark.parametrize("damage", ["model.safetensors", "config.json"])
def test_a_damaged_folder_is_an_error_of_ours(tiny_model: Path, tmp_path: Path, damage: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / damage).write_bytes(b"not what it says")
    with pytest.raises(InputError, match="can't be loaded"):
        load_checkpoint(ModelFiles(broken, None), options(), CPU, torch.float32)


def test_pickled_weights_are_not_loaded(tiny_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "pickled"
    shutil.copytree(tiny_model, broken)
    (broken / "model.safetensors").unlink()
    torch.save(llama().state_dict(), broken / "pytorch_model.bin")
    with pytest.raises(InputError, match="can't be loaded"):
        load_checkpoint(ModelFiles(broken, None), options(), CPU, torch.float32)


# Formats and devices
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ({}, torch.float32),
        ({"dtype": "bfloat16"}, torch.bfloat16),
        ({"dtype": "float16"}, torch.float16),
        ({"load_in_16bit": True}, torch.bfloat16),
        ({"load_in_8bit": True}, torch.bfloat16),
        ({"load_in_4bit": True, "dtype": "float32"}, torch.float32),
    ],
)
def test_format_on_a_cpu(values: dict[str, object], dtype: torch.dtype) -> None:
    assert resolve_dtype(options(**values), CPU) == dtype


@pytest.mark.parametrize(
    ("values", "has_bfloat16", "dtype"),
    [
        ({}, True, torch.bfloat16),
        ({"is_peft": False}, True, torch.float32),  # 16 bits would round small updates away
        ({"is_peft": False, "dtype": "bfloat16"}, True, torch.bfloat16),
        ({"is_peft": False, "load_in_16bit": True}, True, torch.bfloat16),
        ({}, False, torch.float32),
        ({"load_in_4bit": True}, False, torch.float16),
    ],
)
def test_format_on_a_gpu(
    values: dict[str, object], has_bfloat16: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return has_bfloat16 or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert resolve_dtype(options(**values), torch.device("cuda", 0)) == dtype


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "tpu", "cpu:x", ""])
def test_a_device_that_is_not_there_is_an_error_of_ours(name: str) -> None:
    with pytest.raises(InputError, match="device"):
        resolve_device(name)


def test_the_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type in ("cpu", "cuda")


# Adapters
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "input_layernorm"])
def test_target_modules_that_lora_cannot_adapt_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"can't adapt '{name}'") as refused:
        adapter_size(llama(), options(target_modules=["q_proj", name]))
    assert "gate_proj" in str(refused.value)


def test_missing_target_modules_are_answered_with_those_that_exist() -> None:
    with pytest.raises(InputError) as caught:
        target_modules(llama(), options(target_modules=["q_proj", "query", "wo"]))
    said = str(caught.value)
    assert "'query', 'wo'" in said
    assert "'q_proj'" not in said
    for name in ("q_proj", "k_proj", "o_proj", "gate_proj", "down_proj"):
        assert name in said


def test_initialisation_depends_on_its_seed_alone() -> None:
    def fresh(seed: int, before: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(before)
        torch.rand(before)
        network = llama()
        torch.manual_seed(before)
        wrapped = attach_adapter(network, configuration("naive").finetune_config, seed=seed)
        return copies(CausalModel(network, wrapped).trainable)

    one, again, other = fresh(3, 1), fresh(3, 17), fresh(4, 1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert all(not tensor.any() for name, tensor in one.items() if ".lora_B." in name)


def test_attaching_an_adapter_moves_no_other_chance() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    network = llama()
    torch.manual_seed(5)
    attach_adapter(network, configuration("naive").finetune_config, seed=3)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("targets", [("q_proj", "down_proj"), "all-linear"])
def test_adapter_size_is_known_before_anything_is_loaded(targets: object) -> None:
    chosen = options(r=4, target_modules=targets)
    network = llama()
    expected = adapter_size(network, chosen)
    wrapped = attach_adapter(network, chosen, seed=1)
    assert sum(weight.numel() for weight in wrapped.parameters() if weight.requires_grad) == expected


def test_adapter_size_counts_gpt2s_own_kind_of_linear_layer() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    network = GPT2LMHeadModel(GPT2Config(vocab_size=53, n_embd=32, n_layer=2, n_head=4, n_positions=64))
    chosen = options(r=4, target_modules=["c_attn", "c_fc"])
    expected = adapter_size(network, chosen)
    wrapped = attach_adapter(network, chosen, seed=1)
    assert sum(weight.numel() for weight in wrapped.parameters() if weight.requires_grad) == expected > 0


def test_a_saved_adapter_gives_the_same_logits_when_loaded_again(tmp_path: Path) -> None:
    from peft import PeftModel

    network = llama(dtype=torch.float32)
    model = causal_model(network, configuration("naive").finetune_config)
    assert model.adapter is not None
    save_adapter(model.adapter, tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    again = PeftModel.from_pretrained(network, str(tmp_path / "adapter"))
    ids = torch.arange(10).unsqueeze(0)
    with torch.no_grad():
        found, expected = again(input_ids=ids).logits, model.network(input_ids=ids).logits
    # Loaded with peft's own layers, which sum in another order; the saved weights themselves are compared
    # bit by bit as they are saved.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_whole_model_is_saved_with_its_adapter_merged(tiny_model: Path, tmp_path: Path, tied: bool) -> None:
    from transformers import AutoModelForCausalLM

    model = causal_model(llama(dtype=torch.float32, tied=tied), configuration("naive").finetune_config)
    ids = torch.arange(10).unsqueeze(0)
    with torch.no_grad():
        expected = model.network(input_ids=ids).logits
    save_whole_model(model, load_tokenizer(ModelFiles(tiny_model, None), options()), tmp_path / "whole")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.network(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)


# Quantisation
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4])
def test_a_bitsandbytes_that_does_not_work_is_told_before_a_model_is_touched(
    bits: int, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    def broken(*parts: object, **names: object) -> None:
        raise RuntimeError("CUDA Setup failed despite GPU being available")

    layers = types.SimpleNamespace(Linear8bitLt=broken, Linear4bit=broken)
    stand_in = types.ModuleType("bitsandbytes")
    stand_in.nn = layers  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", stand_in)
    chosen = options(**{f"load_in_{bits}bit": True})
    with pytest.raises(InputError) as caught:
        load_checkpoint(ModelFiles(tiny_model, None), chosen, CPU, torch.bfloat16)
    said = str(caught.value)
    assert f"{bits}-bit loading does not work here" in said
    assert f"load_in_{bits}bit" in said
    assert "CUDA Setup failed" in said


@pytest.mark.parametrize("bits", [8, 4])
def test_a_missing_bitsandbytes_is_told_as_well(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match="bitsandbytes"):
        probe(options(**{f"load_in_{bits}bit": True}), CPU, torch.bfloat16)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_model_loads_on_a_cpu_where_bitsandbytes_can(bits: int, tmp_path: Path) -> None:
    chosen = options(**{f"load_in_{bits}bit": True}, r=4, target_modules=["q_proj"])
    try:
        probe(chosen, CPU, torch.bfloat16)
    except InputError as error:
        pytest.skip(str(error))
    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 4}
    llama(dtype=torch.float32, **shape).save_pretrained(tmp_path)
    network = load_checkpoint(ModelFiles(tmp_path, None), chosen, CPU, torch.bfloat16)
    kinds = {type(module).__name__ for module in network.modules()}
    assert kinds & {"Linear8bitLt", "Linear4bit"}
    model = CausalModel(network, attach_adapter(network, chosen, seed=1))
    network.train()
    loss = model.logits(model.hidden(torch.arange(1, 9).unsqueeze(0))).float().logsumexp(-1).mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert model.trainable
    assert all(".lora_" in name for name in model.trainable)
    assert all(weight.grad is not None for name, weight in model.trainable.items() if "lora_B" in name)


def test_a_model_that_is_not_quantised_loads_no_bitsandbytes() -> None:
    code = (
        "import sys, torch; from small_models import causal_model, configuration, llama; "
        "causal_model(llama(), configuration('naive').finetune_config); "
        "assert 'bitsandbytes' not in sys.modules; "
        "import peft.import_utils as found; assert found.is_bnb_available(); import bitsandbytes"
    )
    tests = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=tests, check=True, timeout=120)
