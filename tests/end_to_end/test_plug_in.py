"""A strategy in a package of its own, installed beside triggerctl: the example of INTERFACE.md, as it stands.

Run: pytest tests/end_to_end/test_plug_in.py"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from triggerctl import strategies
from triggerctl.strategies.base import OfTargets

PAGE = (Path(strategies.__file__).parent / "INTERFACE.md").read_text(encoding="utf-8")
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "mean-absolute-error"
version = "1.2"

"""


def example(kind: str) -> str:
    """The one block of INTERFACE.md of that kind."""
    (block,) = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return str(block)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where an installer put the package; built here, with nothing fetched."""
    source = tmp_path_factory.mktemp("source")
    (source / "pyproject.toml").write_text(PROJECT + example("toml"), encoding="utf-8")
    (source / "mean_absolute_error.py").write_text(example("python"), encoding="utf-8")
    target = tmp_path_factory.mktemp("site")
    alone = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *alone, "--target", str(target), str(source)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def triggerctl(*words: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program in the working folder, with the installed packages of `site` or without."""
    checkout = Path(strategies.__file__).parents[2]
    path = os.pathsep.join(map(str, [checkout, *([site] if site else [])]))
    return subprocess.run(
        [sys.executable, "-m", "triggerctl", *words],
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_an_installed_strategy_is_explained_under_its_alias(experiment: Path, site: Path) -> None:
    done = triggerctl("validate", "exp", "--strategy", "mae", "--json", site=site)
    assert done.returncode == 0, done.stderr
    strategy = json.loads(done.stdout)["strategy"]
    assert strategy["name"] == "mean_absolute_error"
    assert strategy["reads"] == {"lambda_proxy": 0.5, "proxy_cycling_mode": "continuous"}
    assert strategy["unread"] == ["beta_kl"]


def test_it_is_listed_where_it_is_installed_and_unknown_elsewhere(experiment: Path, site: Path) -> None:
    asked = ("validate", "exp", "--config-only", "--strategy")
    assert "mean_absolute_error" in triggerctl(*asked, "nonsense", site=site).stderr
    without = triggerctl(*asked, "mae")
    assert without.returncode == 2
    assert "there is no strategy named 'mae'" in without.stderr


class OnePosition:
    """The part of a forward pass that the example asks for."""

    def at_targets(self, value: OfTargets) -> Tensor:
        return value(torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([2]))


def test_the_examples_loss_is_its_formula() -> None:
    namespace: dict[str, Any] = {}
    exec(example("python"), namespace)
    probability = math.exp(3) / (math.exp(0) + math.exp(1) + math.exp(3))
    assert float(namespace["total"](OnePosition())) == pytest.approx(1 - probability)
