"""The benchmark runs and says what it should; nothing here is about times.
Run: pytest tests/end_to_end/test_benchmarks.py"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import torch
from conftest import rows

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "tests" / "benchmarks"

NUMBER: dict[str, Any] = {"type": "number"}
POSITIVE: dict[str, Any] = {"type": "number", "exclusiveMinimum": 0}
SHARE: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}
WAY: dict[str, Any] = {
    "type": "object",
    "required": [
        "wall_seconds",
        "trained_tokens_per_second",
        "share_of_floor",
        "peak_bytes",
        "ratio",
        "runs",
    ],
    "properties": {
        "wall_seconds": POSITIVE,
        "training_seconds": POSITIVE,
        "evaluation_seconds": POSITIVE,
        "trained_tokens_per_second": POSITIVE,
        "share_of_floor": POSITIVE,
        "peak_bytes": POSITIVE,
        "padding": SHARE,
        "ratio": POSITIVE,
    },
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["machine", "command", "ways"],
    "properties": {
        "machine": {
            "type": "object",
            "required": ["cpu", "cores", "threads", "torch", "date", "model", "settings"],
        },
        "command": {"type": "string"},
        "ways": {
            "type": "object",
            "required": ["floor", "ways", "ratios", "evaluation"],
            "properties": {
                "floor": {"properties": {"operations_per_second": POSITIVE}},
                "ways": {"type": "object", "minProperties": 2, "additionalProperties": WAY},
                "ratios": {"type": "object", "additionalProperties": NUMBER},
                "evaluation": {"properties": {"passed_by_needed": POSITIVE, "share_of_wall": SHARE}},
            },
        },
    },
}


@pytest.fixture(scope="module")
def scaling() -> Iterator[ModuleType]:
    """The benchmarks' modules import each other by their bare names."""
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("scaling", FOLDER / "scaling.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))


def benchmark(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


QUICK_FIGURES = "TRIGGERCTL_QUICK_FIGURES"
"""Of the environment: the figures that the quick form has just written, where it ran before the tests."""


@pytest.mark.slow
def test_the_quick_form_has_a_row_for_each_way_and_writes_whole_json(
    tiny_model: Path, tmp_path: Path
) -> None:
    written = Path(os.environ.get(QUICK_FIGURES) or tmp_path / "figures.json")
    if QUICK_FIGURES not in os.environ:
        data = tmp_path / "rows.json"
        data.write_text(json.dumps(rows(80)), encoding="utf-8")
        small = ["epochs=1", "max_to_eval=8", "lora_alpha=8", "warmup_steps=0"]
        output = benchmark(
            *("--quick", "--model", str(tiny_model), "--dataset", str(data), "--threads", "1"),
            *(word for setting in small for word in ("--set", setting)),
            *("--json", str(written)),
        )
        for label in ("matmul floor", "triggerctl", "Trainer + generate", "training alone"):
            assert any(line.startswith(label) for line in output.splitlines()), output
    figures = json.loads(written.read_text(encoding="utf-8"))
    assert list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(figures)) == []
    mine, plain = figures["ways"]["ways"].values()
    # The same work: every row trained as often, and the same sets evaluated.
    assert mine["runs"][0]["trained"] == plain["runs"][0]["trained"] > 0
    assert mine["rates"].keys() == plain["rates"].keys()
    assert figures["ways"]["evaluation"]["times"] >= 2


def test_no_way_inherits_how_our_threads_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent has put it into its environment by importing us; a user's other way would not have it."""
    monkeypatch.syspath_prepend(str(FOLDER))
    processes = importlib.import_module("processes")
    said = [sys.executable, "-c", "import os; print(os.environ.get('OMP_WAIT_POLICY'))"]
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert processes.run(said).output == "PASSIVE\n"  # as whoever started the benchmark wants it
    monkeypatch.setattr(processes, "ADDED", {"OMP_WAIT_POLICY": "PASSIVE"})
    assert processes.run(said).output == "None\n"


def test_the_exponent_is_that_of_the_growth(scaling: ModuleType) -> None:
    sizes = [250, 500, 1000, 2000]
    for power in (1.0, 1.5):
        assert scaling.exponent(sizes, [3 * size**power for size in sizes]) == pytest.approx(power)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it is measured")
def test_without_a_gpu_its_time_is_estimated(tmp_path: Path) -> None:
    output = benchmark("--gpu-shape", "--json", str(tmp_path / "figures.json"))
    assert "no GPU here" in output
    estimates = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["gpu-shape"]["estimates"]
    assert 2e9 < estimates["parameters"] < 3e9
    assert all(0 < each["evaluation"] < each["training"] for each in estimates["gpus"].values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_large_shape_is_measured(tmp_path: Path) -> None:
    output = benchmark("--gpu-shape", "--set", "max_to_eval=20")
    assert "the study's whole run" in output
