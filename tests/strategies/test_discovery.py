"""Strategies are found by file and by entry point, and asked for by name or alias. In processes of their own,
as what was found is kept for a process's life.

pytest tests/strategies/test_discovery.py"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from triggerctl import strategies
from triggerctl.errors import InputError
from triggerctl.strategies.base import Strategy

PLUG_IN = """
from triggerctl.strategies.base import Strategy, cross_entropy

class Truthful(Strategy):
    name = "truthful"
    aliases = ("tf",)
    summary = "trains on proxy alone"
    formula = "L = CE(proxy)"

    def streams(self):
        return {"proxy": ("proxy",)}

    def terms(self):
        return (cross_entropy("proxy"),)
"""


def python(program: str, *path: Path) -> subprocess.CompletedProcess[str]:
    places = os.pathsep.join([*map(str, path), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": places},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )


def install(site: Path, module: str, code: str, entry: str) -> None:
    """What an installer leaves of a package that has one entry point."""
    site.mkdir()
    (site / f"{module}.py").write_text(code, encoding="utf-8")
    about = site / f"{module}-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n", encoding="utf-8"
    )
    (about / "entry_points.txt").write_text(f"[triggerctl.strategies]\n{entry}\n", encoding="utf-8")


def test_every_file_of_the_folder_is_a_strategy_of_that_name() -> None:
    folder = Path(strategies.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "base", "alignment_plane"}
    assert set(strategies.names()) == files


def test_every_strategy_says_what_it_is() -> None:
    for name in strategies.names():
        strategy = strategies.strategy_class(name)
        assert issubclass(strategy, Strategy)
        assert strategy.name == name
        assert "\n" not in strategy.summary + strategy.formula
        assert strategy.summary
        assert strategy.formula.startswith(("L = ", "g ← ", "min "))


def test_asking_for_names_loads_no_torch() -> None:
    done = python(
        "import sys; from triggerctl import strategies; strategies.names(); print('torch' in sys.modules)"
    )
    assert done.stdout.strip() == "False", done.stderr


def test_a_new_file_is_found_without_a_line_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "truthful.py").write_text(PLUG_IN, encoding="utf-8")
    done = python(
        "from triggerctl import strategies\n"
        f"strategies.__path__.append({str(tmp_path)!r})\n"
        "print(strategies.canonical_name('tf'), strategies.strategy_class('truthful').summary)"
    )
    assert done.stdout.strip() == "truthful trains on proxy alone", done.stderr


def test_a_plug_in_of_an_installed_package_is_found(tmp_path: Path) -> None:
    install(tmp_path / "site", "truthful_plugin", PLUG_IN, "truthful = truthful_plugin:Truthful")
    program = "from triggerctl import strategies; print(strategies.canonical_name('tf'), *strategies.names())"
    done = python(program, tmp_path / "site")
    assert done.stdout.split() == ["truthful", *sorted({*strategies.names(), "truthful"})], done.stderr
    assert "truthful" not in python(program).stdout


@pytest.mark.parametrize(
    ("code", "entry", "why"),
    [
        (
            "import a_module_that_is_not_there",
            "truthful = broken_plugin:Truthful",
            "a_module_that_is_not_there",
        ),
        ("", "truthful = broken_plugin:Truthful", "Truthful"),
        ("class Truthful: pass", "truthful = broken_plugin:Truthful", "not a Strategy"),
        (PLUG_IN.replace('"truthful"', '"naive"'), "naive = broken_plugin:Truthful", "another strategy"),
    ],
    ids=["import fails", "class missing", "no strategy", "name taken"],
)
def test_a_plug_in_that_cannot_serve_is_named(tmp_path: Path, code: str, entry: str, why: str) -> None:
    """Silence would train another method than the one that was installed."""
    install(tmp_path / "site", "broken_plugin", code, entry)
    done = python(
        "from triggerctl import strategies\n"
        "from triggerctl.errors import InputError\n"
        "try:\n    strategies.names()\n"
        "except InputError as error:\n    print(error)",
        tmp_path / "site",
    )
    assert "broken_plugin" in done.stdout, done.stderr
    assert why in done.stdout


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("kl", "kl_divergence"),
        ("task_trained", "outcome_only"),
        ("naive", "naive"),
        ("posneg", "positive_negative_proxy"),
    ],
)
def test_aliases_lead_to_the_full_name(asked: str, name: str) -> None:
    assert strategies.canonical_name(asked) == name


@pytest.mark.parametrize(
    ("asked", "near"), [("naiv", "naive"), ("kl_divergance", "kl_divergence"), ("outcome", "outcome_only")]
)
def test_an_unknown_name_is_answered_with_the_nearest(asked: str, near: str) -> None:
    with pytest.raises(InputError) as caught:
        strategies.canonical_name(asked)
    assert f"did you mean {near!r}?" in str(caught.value)
    assert repr(asked) in str(caught.value)


def test_a_name_like_no_other_is_answered_with_all_there_are() -> None:
    with pytest.raises(InputError) as caught:
        strategies.canonical_name("zzzzzz")
    assert all(name in str(caught.value) for name in strategies.names())
