"""pytest tests/config/test_paths.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from triggerctl.config.paths import rebase_paths, shown_url, shown_values, without_secrets, written_path
from triggerctl.errors import InputError


def test_relative_paths_name_the_same_files_from_a_sub_folder(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    cell = tmp_path / "proxy_strategy_naive" / "seed_1"
    values: dict[str, Any] = {
        "seed": 1,
        "dataset_url": "rows.json",
        "extra_evaluation": {"mine": {"path": "../extra.json", "nice": True}},
        "finetune_config": {"model": "models/mine", "steering_vector_path": "plane.safetensors", "epochs": 3},
    }
    moved: dict[str, Any] = rebase_paths(values, tmp_path, cell)
    assert moved["dataset_url"] == "../../rows.json"
    assert moved["finetune_config"] == {
        "model": "../../models/mine",
        "steering_vector_path": "../../plane.safetensors",
        "epochs": 3,
    }
    assert moved["extra_evaluation"] == {"mine": {"path": "../../../extra.json", "nice": True}}
    assert values["dataset_url"] == "rows.json"


def test_moving_there_and_back_names_the_same_file(tmp_path: Path) -> None:
    values = {"dataset_url": "data/rows.json"}
    there = rebase_paths(values, tmp_path, tmp_path / "cell")
    back = rebase_paths(there, tmp_path / "cell", tmp_path)
    assert back == {"dataset_url": "./data/rows.json"}


@pytest.mark.parametrize(
    "spec", ["https://x.org/a.json", "http://x.org/a", "builtin:demo", "/data/a.json", "~/a.json"]
)
def test_what_is_no_relative_path_stays(tmp_path: Path, spec: str) -> None:
    assert rebase_paths({"dataset_url": spec}, tmp_path, tmp_path / "cell") == {"dataset_url": spec}


@pytest.mark.parametrize("spec", ["google/gemma-2b-it", "builtin:tiny", "./not-here"])
def test_a_model_that_is_no_folder_beside_the_config_stays(tmp_path: Path, spec: str) -> None:
    values = {"finetune_config": {"model": spec}}
    assert rebase_paths(values, tmp_path, tmp_path / "cell") == values


@pytest.mark.parametrize("spec", ["kept/model", "kept", "a/../b", "..hidden", "com", "nullable"])
def test_a_path_below_the_experiment_may_be_written(tmp_path: Path, spec: str) -> None:
    place = written_path(spec, folder=tmp_path, experiment=tmp_path, key="output_dir")
    assert place == tmp_path / spec


def test_a_cell_may_write_to_its_experiment(tmp_path: Path) -> None:
    cell = tmp_path / "proxy_strategy_naive" / "seed_1"
    cell.mkdir(parents=True)
    place = written_path("../../plane", folder=cell, experiment=tmp_path, key="steering_vector_path")
    assert place.resolve() == tmp_path / "plane"


@pytest.mark.parametrize(
    "spec",
    ["..", "../x", "a/../../x", "/tmp/x", "~/x", "link/x", "CON", "a/nul.txt", "a/com1", "a.", "a/b ", "c:x"],
)
def test_a_path_that_leaves_the_experiment_or_is_no_name_everywhere_is_refused(
    tmp_path: Path, spec: str
) -> None:
    folder = tmp_path / "exp"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(InputError) as caught:
        written_path(spec, folder=folder, experiment=folder, key="output_dir")
    assert caught.value.problems[0].where == "output_dir"


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("https://me:secret@host/a.json?token=hidden#part", "https://host/a.json?…"),
        ("http://host:8000/a@b.json", "http://host:8000/a@b.json"),
        ("https://me:secret@host", "https://host"),
        ("../rows@home?.json", "../rows@home?.json"),
    ],
)
def test_of_an_address_only_what_is_no_secret_is_shown(spec: str, shown: str) -> None:
    assert shown_url(spec) == shown
    values = {"dataset_url": spec, "extra_evaluation": {"own": {"path": spec}}, "seed": 1}
    assert shown_values(values) == {
        "dataset_url": shown, "extra_evaluation": {"own": {"path": shown}}, "seed": 1
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("dataset_url=https://me:secret@host/a.json", "dataset_url=https://host/a.json"),
        (
            "dataset_url=b.json,http://me:se,cret@h/a?t=x,https://h/b",
            "dataset_url=b.json,http://h/a?…,https://h/b",
        ),
        ('dataset_url="https://me:a,b@host/a?t=1,2",b.json', 'dataset_url="https://host/a?…",b.json'),
        (
            'extra_evaluation={"own": {"path": "https://me:pw@h/x"}}',
            'extra_evaluation={"own": {"path": "https://h/x"}}',
        ),
        ("https://me:secret@host/a?k=1,2 3", "https://host/a?…"),
        ("https://host/a,https://me:secret@host/b", "https://host/a,https://host/b"),
        ("nice@words.example, nothing else", "nice@words.example, nothing else"),
    ],
)
def test_within_a_text_too(said: str, shown: str) -> None:
    assert without_secrets(said) == shown
    assert without_secrets({"k": (said, 1, None), "n": 0.5}) == {"k": [shown, 1, None], "n": 0.5}
