"""The wheel: what it holds, and that it alone, installed away from the checkout, does the main job.

Run: pytest tests/end_to_end/test_wheel.py"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest

import triggerctl

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "triggerctl"


def project() -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(loaded["project"])


def hatchling(source: Path, target: str, output: Path) -> Path:
    """Build with the project's own build backend; no network, no isolation."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(output)],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (built,) = output.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hatchling(REPOSITORY, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the unpacked sdist, as an index would."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(sdist, unpacked)
    (source,) = unpacked.iterdir()
    return hatchling(source, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_version_of_the_package_is_the_projects() -> None:
    assert triggerctl.__version__ == project()["version"]


def test_newest_entry_of_the_changelog_is_this_version() -> None:
    lines = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    versions = [line.split("]")[0].removeprefix("## [") for line in lines if line.startswith("## [")]
    assert project()["version"] == next(version for version in versions if version != "Unreleased")


def test_wheel_holds_every_module_template_and_asset(names: set[str]) -> None:
    source = {
        path.relative_to(REPOSITORY).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    templates = {
        f"triggerctl/{path.relative_to(REPOSITORY).as_posix()}"
        for path in (REPOSITORY / "templates").rglob("*")
        if path.is_file()
    }
    assert {"triggerctl/py.typed", "triggerctl/assets/models/tiny/model.safetensors"} <= source
    assert "triggerctl/templates/quickstart/config.json" in templates
    assert {name for name in names if not name.startswith("triggerctl-")} == source | templates


def test_wheel_holds_no_tests_and_stays_small(wheel: Path, names: set[str]) -> None:
    assert not [name for name in names if "tests/" in name or "/test_" in name]
    assert wheel.stat().st_size < 10_000_000


def test_wheel_carries_licence_command_and_requirements(wheel: Path, names: set[str]) -> None:
    info = f"triggerctl-{triggerctl.__version__}.dist-info"
    assert f"{info}/licenses/LICENSE" in names
    with zipfile.ZipFile(wheel) as archive:
        commands = archive.read(f"{info}/entry_points.txt").decode()
        metadata = message_from_string(archive.read(f"{info}/METADATA").decode())
    assert "triggerctl = triggerctl.__main__:program" in commands
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    required = metadata.get_all("Requires-Dist")
    assert required is not None
    torch = next(each for each in required if each.startswith("torch"))
    assert "<2.14" in torch
    assert not [each for each in required if "@" in each or "://" in each]


def test_sdist_holds_what_building_and_testing_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        files = {Path(name).relative_to(Path(name).parts[0]).as_posix() for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "requirements.lock"} <= files
    assert {"templates/quickstart/config.json", "tests/conftest.py", "triggerctl/py.typed"} <= files
    assert not [
        name for name in files if name.startswith((".git/", ".venv/", "experiments/", ".mypy_cache/"))
    ]


def test_lock_names_every_requirement_and_no_place() -> None:
    text = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    locked = {line.split("==")[0] for line in text.splitlines() if "==" in line}
    wanted = {
        requirement.split("<")[0].split(">")[0].split("=")[0].strip().lower()
        for group in (project()["dependencies"], project()["optional-dependencies"]["dev"])
        for requirement in group
    }
    assert wanted <= locked
    assert "://" not in text
    assert not [name for name in locked if name.startswith(("nvidia", "cuda", "triton"))]


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment that holds the wheel; it sees the dependencies installed here, and no checkout.

    A line of a .pth file adds a folder but none of its .pth files: an editable install stays unseen."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    asked = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    dependencies = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    Path(asked.stdout.strip(), "dependencies.pth").write_text(
        "\n".join(dependencies) + "\n", encoding="utf-8"
    )
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*install, "--ignore-installed", str(wheel)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_wheel_alone_begins_trains_and_reports(environment: Path, tmp_path: Path) -> None:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("TRIGGERCTL", "PYTHON"))
    }
    variables = kept | {"HF_HUB_OFFLINE": "1", "TRIGGERCTL_CACHE": str(tmp_path / "cache")}
    empty = tmp_path / "empty"
    empty.mkdir()

    def output_of(program: str, *words: str) -> str:
        done = subprocess.run(
            [environment / "bin" / program, *words],
            cwd=empty,
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = output_of("python", "-c", "import triggerctl; print(triggerctl.__file__)")
    assert Path(where).is_relative_to(environment)
    assert output_of("triggerctl", "--version") == f"triggerctl {triggerctl.__version__}\n"
    listed = {each["name"] for each in json.loads(output_of("triggerctl", "init", "--list", "--json"))}
    assert listed == {path.parent.name for path in (REPOSITORY / "templates").glob("*/config.json")}

    small = ["max_dataset_size=300", "epochs=1", "max_to_eval=8"]
    output_of("triggerctl", "init", "demo", "--template", "quickstart", "--set", *small)
    output_of("triggerctl", "run", "demo", "--threads", "1")
    output_of("triggerctl", "report", "demo")

    demo = empty / "experiments" / "demo"
    assert len(list(demo.glob("results/*/results.json"))) == 1
    assert (demo / "report" / "index.html").is_file()
    assert [path.name for path in empty.iterdir()] == ["experiments"]
