"""Wrong input of each kind: one clear block, exit 2, nothing written.

Run: pytest tests/cli/test_bad_input.py"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from triggerctl.cli.app import main

MakeExperiment = Callable[..., Path]
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("TRIGGERCTL_ROOT", raising=False)


def refused(
    line: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """The block that a command was refused with; nothing may have been written."""
    monkeypatch.chdir(folder.parents[1])
    before = sorted(folder.parents[1].rglob("*"))
    assert main(line.split()) == 2
    said = capsys.readouterr()
    assert said.err.count("error ") >= 1
    assert "Traceback" not in said.err
    assert "defect" not in said.err
    assert sorted(folder.parents[1].rglob("*")) == before
    return said.err


def finetune(**values: Any) -> Change:
    return lambda config: config["finetune_config"].update(values)


def top(**values: Any) -> Change:
    return lambda config: config.update(values)


CONFIGS: dict[str, tuple[Change, str]] = {
    "misspelt key": (finetune(learning_rat=1), 'did you mean "learning_rate"'),
    "key at the wrong level": (top(beta_kl=1), "finetune_config.beta_kl"),
    "string for a number": (finetune(epochs="3"), "finetune_config.epochs"),
    "shares of 0.9": (top(truth_percent=0.1), "sum to 0.9"),
    "unknown strategy": (top(proxy_strategy="naiv"), "did you mean 'naive'?"),
    "missing data": (top(dataset_url="nowhere.json"), "nowhere.json"),
    "unknown model folder": (finetune(model="./nowhere"), "./nowhere"),
    "hub id without a network": (finetune(model="nobody/none-such"), "nobody/none-such"),
    "unknown target modules": (finetune(target_modules=["w_proj"]), "w_proj"),
    "coverage of no triggers": (
        top(truth_triggers=[], proxy_triggers=None, proxy_trigger_coverage=0.5),
        "truth_triggers",
    ),
    "prompts longer than a row": (finetune(max_seq_length=3), "max_seq_length"),
    "unknown builtin model": (finetune(model="builtin:huge"), "builtin:huge"),
    "unknown builtin data": (top(dataset_url="builtin:nothing"), "builtin:nothing"),
}


IN_A_WORKER = {"prompts longer than a row", "hub id without a network"}
"""A sweep has these found by a worker, which takes seconds to start: one is started for both, below."""


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        (kind, command)
        for kind in CONFIGS
        for command in ("run", "validate", "sweep")
        if command != "sweep" or kind not in IN_A_WORKER
    ],
)
def test_a_wrong_config_is_refused(
    kind: str,
    command: str,
    make_experiment: MakeExperiment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_experiment("exp")
    change, expected = CONFIGS[kind]
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    change(values)
    (folder / "config.json").write_text(json.dumps(values, indent=2), encoding="utf-8")
    line = {"run": "run exp", "validate": "validate exp", "sweep": "sweep exp --seeds 1 2"}[command]
    block = refused(line, folder, monkeypatch, capsys)
    assert expected in block
    assert "where " in block


def test_a_sweep_refuses_all_that_its_worker_finds(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_experiment("exp")
    cells = [{"max_seq_length": 3}, {"model": "nobody/none-such"}]
    (folder / "sweep.json").write_text(json.dumps({"naive": cells}), encoding="utf-8")
    block = refused("sweep exp --seeds 1 2", folder, monkeypatch, capsys)
    assert all(CONFIGS[kind][1] in block for kind in IN_A_WORKER)
    assert "where " in block


@pytest.mark.parametrize("line", ["run exp", "validate exp", "sweep exp --seeds 1"])
def test_rows_longer_than_the_model_can_read_are_refused(
    line: str,
    make_experiment: MakeExperiment,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tmp_path / "short"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 20}))
    folder = make_experiment("exp", finetune={"model": str(model), "max_seq_length": 64})
    block = refused(line, folder, monkeypatch, capsys)
    assert "tokens is longer than the model can read" in block
    assert "max_seq_length 20 or less" in block


DATA: dict[str, tuple[bytes, str]] = {
    "no list": (b'{"a": 1, "b": [2]}', "rows.json"),
    "a row without output": (b'[{"instruction": "a", "input": "b"}]', "output"),
    "empty": (b"", "empty"),
    "an empty list": (b"[]", "no rows"),
    "not UTF-8": ('[{"instruction": "é"}]'.encode("latin-1"), "UTF-8"),
    "cut in half": (b'[{"instruction": "a", "input": "b", "out', "rows.json"),
}


@pytest.mark.parametrize("command", ["run exp", "validate exp --write-data out", "sweep exp --seeds 1"])
@pytest.mark.parametrize("kind", list(DATA))
def test_wrong_data_is_refused(
    kind: str,
    command: str,
    make_experiment: MakeExperiment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_experiment("exp")
    content, expected = DATA[kind]
    (folder.parents[1] / "rows.json").write_bytes(content)
    assert expected in refused(command, folder, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run expp", "did you mean exp?"),
        ("run exp --seed x", "'x' is not a seed"),
        ("run exp --strategy kll", "kl"),
        ("run exp --set epochz=1", "epochz"),
        ("run exp --device tpu", "tpu"),
        ("sweep exp --seeds x", "'x' is not a seed"),
        ("sweep exp", "nothing to sweep"),
        ("sweep exp --seeds", "triggerctl sweep --help"),
        ("sweep exp --seeds 1 --strategies ,", "--strategies names nothing"),
        ("run exp --set learning_rate=1e999", "greater than 0"),
        ("sweep exp --seeds 1 --device tpu", "tpu"),
        ("sweep exp --seeds 1 --strategies naive,kll", "kll"),
        ("report exp", "nothing to report"),
        ("report exp --format pdf", "pdf"),
        ("status nowhere", "nowhere"),
        ("validate exp nowhere", "one experiment at a time"),
        ("validate", "no experiment is named"),
    ],
)
def test_a_wrong_word_is_refused(
    line: str,
    expected: str,
    make_experiment: MakeExperiment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert expected in refused(line, make_experiment("exp"), monkeypatch, capsys)


def test_a_config_cut_in_half_is_refused_with_its_line(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_experiment("exp")
    text = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(text[: len(text) // 2], encoding="utf-8")
    assert "config.json:" in refused("run exp", folder, monkeypatch, capsys)


def test_a_place_that_cannot_be_written_is_refused(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No chmod stops root, so root is sent where the kernel lets nobody make a folder."""
    folder = make_experiment("exp")
    if os.geteuid() == 0:
        assert "/sys/new" in refused("init new --template minimal --root /sys", folder, monkeypatch, capsys)
        return
    folder.chmod(0o500)
    try:
        assert str(folder.name) in refused("run exp", folder, monkeypatch, capsys)
    finally:
        folder.chmod(0o700)


def test_a_root_that_is_a_file_is_refused(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_experiment("exp")
    assert "rows.json" in refused("init new --template minimal --root rows.json", folder, monkeypatch, capsys)


@pytest.mark.parametrize("command", ["run exp", "validate exp", "sweep exp --seeds 1"])
def test_8_bit_weights_where_their_probe_fails_are_refused(
    command: str,
    make_experiment: MakeExperiment,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A bitsandbytes that can't be imported makes the probe fail, here and in a sweep's worker."""
    broken = tmp_path_factory.mktemp("packages")
    (broken / "bitsandbytes.py").write_text("raise ImportError('broken')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(broken))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    folder = make_experiment("exp", finetune={"load_in_8bit": True})
    assert "8-bit" in refused(command, folder, monkeypatch, capsys)
