"""Products are the same by either library, there and back, and which one multiplies follows a rule.
Run: pytest tests/model/test_products.py"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import causal_model, configuration, llama, mistral, rows
from test_causal_models import network_of
from torch import Tensor, nn

from triggerctl.data.batches import collate
from triggerctl.model import products
from triggerctl.model.fused_llama import FusedLlama
from triggerctl.model.processor import processor_maker, processor_name
from triggerctl.model.products import QuickLinear, is_quick, prefers_onednn, product, round_number
from triggerctl.model.threads import threads
from triggerctl.training.scoring import Request, score

there = pytest.mark.skipif(not products._onednn_agrees(), reason="needs a PyTorch with oneDNN")


@pytest.fixture
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """oneDNN whatever the processor, and for products of any size; the shapes it has multiplied."""
    asked: list[tuple[int, ...]] = []
    multiply = products._by_onednn

    def noted(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        asked.append(tuple(rows.shape))
        return multiply(rows, weight, bias)

    monkeypatch.setattr(products, "prefers_onednn", lambda: True)
    monkeypatch.setattr(products, "_pays", lambda *sizes: True)
    monkeypatch.setattr(products, "_by_onednn", noted)
    return asked


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@there
@pytest.mark.parametrize("m", [1, 7, 16, 45])
@pytest.mark.parametrize("turned", [False, True], ids=["as stored", "transposed views"])
@pytest.mark.parametrize("biased", [False, True], ids=["no bias", "bias"])
def test_a_product_is_rows_by_the_weights_transpose(
    m: int, turned: bool, biased: bool, by_onednn: list[tuple[int, ...]]
) -> None:
    rows_, weight = drawn(m, 24), drawn(10, 24, seed=2)
    if turned:
        rows_, weight = rows_.T.contiguous().T, weight.T.contiguous().T
    bias = drawn(10, seed=3) if biased else None
    expected = rows_.double() @ weight.double().T + (0 if bias is None else bias.double())
    torch.testing.assert_close(product(rows_, weight, bias).double(), expected, rtol=1e-5, atol=1e-5)
    assert by_onednn == [(m, 24)]


def test_other_formats_are_pytorchs_affair(by_onednn: list[tuple[int, ...]]) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        rows_, weight = drawn(16, 32).to(dtype), drawn(8, 32, seed=2).to(dtype)
        assert torch.equal(product(rows_, weight), nn.functional.linear(rows_, weight))
    assert by_onednn == []


@pytest.mark.parametrize(
    ("m", "k", "n", "pays"),
    [
        (176, 192, 192, True),
        (168, 192, 192, True),
        (172, 192, 192, False),  # a shape that won't come again, for little
        (8, 192, 192, False),  # little work
        (15, 576, 1536, True),  # few rows: there are not many such numbers
        (701, 576, 1536, True),  # a shape of its own, for much
        (32, 176, 512, True),
        (32, 177, 512, False),
    ],
)
def test_a_shape_must_return_or_be_worth_its_program(m: int, k: int, n: int, pays: bool) -> None:
    assert products._pays(m, k, n) is pays


@given(st.integers(1, 100_000))
def test_a_round_number_is_hardly_more(tokens: int) -> None:
    filled = round_number(tokens)
    assert filled % products.ROUND == 0
    assert tokens <= filled <= max(tokens + 7, tokens * 17 / 16)


def test_round_numbers_are_few() -> None:
    assert len({round_number(tokens) for tokens in range(1, 4097)}) <= 16 * 9


def test_a_processor_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(told("AuthenticAMD"))
    assert processor_name(tmp_path / "cpuinfo") == "one"
    assert processor_maker(tmp_path / "cpuinfo") == "AuthenticAMD"
    assert processor_maker(tmp_path / "nothing") is None


def told(maker: str) -> str:
    return f"processor\t: 0\nvendor_id\t: {maker}\nmodel name\t: one\n"


@pytest.fixture
def no_memory() -> Iterator[None]:
    prefers_onednn.cache_clear()
    yield
    prefers_onednn.cache_clear()


@pytest.mark.usefixtures("no_memory")
@pytest.mark.parametrize(
    ("maker", "capability", "expected"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        (None, "AVX512", False),
    ],
)
def test_onednn_is_for_wide_processors_of_others_than_intel(
    maker: str | None, capability: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "cpuinfo"
    if maker is not None:
        about.write_text(told(maker))
    found = processor_maker(about)
    assert found == maker
    monkeypatch.setattr(products, "processor_maker", lambda: found)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(products, "_onednn_agrees", lambda: True)
    assert prefers_onednn() is expected


@pytest.mark.usefixtures("no_memory")
def test_a_pytorch_without_the_operation_multiplies_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> Tensor:
        raise AttributeError("no such operation")

    monkeypatch.setattr(products, "_by_onednn", gone)
    assert not products._onednn_agrees()
    monkeypatch.setattr(products, "_by_onednn", lambda rows, *_: rows)
    assert not products._onednn_agrees()


def test_a_vector_is_multiplied_too() -> None:
    layer = nn.Linear(5, 3).double()
    expected = layer(drawn(5).double())
    layer.__class__ = QuickLinear
    torch.testing.assert_close(layer(drawn(5).double()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("trained", [("weight", "bias"), ("bias",), ()], ids=["all", "bias", "none"])
@pytest.mark.parametrize("biased", [True, False])
def test_gradients_of_a_quick_layer_are_a_plain_ones(trained: tuple[str, ...], biased: bool) -> None:
    layer = nn.Linear(5, 3, bias=biased).double()
    for name, weight in layer.named_parameters():
        weight.requires_grad_(name in trained)
    given_, scale = drawn(2, 4, 5).double().requires_grad_(), drawn(2, 4, 3, seed=2).double()
    found = []
    for kind in (nn.Linear, QuickLinear):
        layer.__class__ = kind
        (layer(given_) * scale).sum().backward()
        wanted = [given_, *(weight for weight in layer.parameters() if weight.requires_grad)]
        found.append([each.grad for each in wanted])
        for each in wanted:
            each.grad = None
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7)], ids=["wide", "narrow"])
def test_the_gradient_of_weights_is_the_same_whichever_is_turned(shape: tuple[int, int]) -> None:
    gradient, given_ = (drawn(4, n, seed=n).double() for n in shape)
    torch.testing.assert_close(products._over_rows(gradient, given_), gradient.T @ given_)


@pytest.mark.parametrize("kind", ["llama", "windows"])
@pytest.mark.parametrize("lanes", [1, 2])
def test_filler_changes_nothing_that_is_said_of_rows(kind: str, lanes: int) -> None:
    """In float64, where products are PyTorch's own, but rows are filled up as in a quick model."""
    found = []
    members = rows((60, 90, 61, 1, 170), seed=1)
    for filled in (False, True):
        network = llama() if kind == "llama" else mistral()
        if filled:
            products.quicken(network)
        model = causal_model(network, configuration("naive").finetune_config)
        assert model.packs
        asked = [
            Request(row.input_ids, range(0, len(row.input_ids) - 1)) for row in members if row.input_ids[1:]
        ]
        with model.evaluating(), model.threads_for(192 * lanes), threads(1):
            model._lanes = lanes
            batch = collate(members, pad_id=0)
            cache = model.prefilled([row.input_ids for row in members if len(row.input_ids) > 1])
            assert cache is not None
            scored = score(
                model, asked, pad_id=0, tokens_per_batch=300, rows_per_batch=None, progress=lambda _: None
            )
            said = [model.states(batch), *model.layers(batch), *(layer[0] for layer in cache)]
            with model.base():
                said.append(model.states(batch))
        assert bool(model.filler) is filled
        assert (scored.padded > scored.passed) is filled
        said.append(torch.tensor([each for answer in scored.answers for each in answer.liked]))
        found.append(said)
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_models_with_linear_layers_in_their_head_alone_are_not_filled_up() -> None:
    network = network_of("gpt2")
    products.quicken(network)
    assert isinstance(network.lm_head, QuickLinear)
    assert not is_quick(network)


@there
@pytest.mark.parametrize("is_peft", [True, False], ids=["lora", "full"])
def test_a_quickened_model_says_and_learns_the_same(
    is_peft: bool, by_onednn: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A program that is compiled already knows nothing of who listens here.
    monkeypatch.setattr(FusedLlama, "of", lambda network: None)
    found = []
    for quick in (False, True):
        network = llama().float()
        if quick:
            products.quicken(network)
        model = causal_model(network, configuration("naive", is_peft=is_peft).finetune_config)
        by_onednn.clear()
        passed = model.passed(collate(rows((4, 9, 6, 1, 17), seed=1), pad_id=0))
        # Filled up to a round number of tokens, which belong to no row.
        assert (model.filler, passed.states.shape[0] % products.ROUND) == ((3, 0) if quick else (0, 5))
        logits = model.logits(passed.at_places())
        logits.square().sum().backward()
        assert bool(by_onednn) is (quick or is_peft)
        found.append({"logits": logits, **{name: weight.grad for name, weight in model.trainable.items()}})
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
