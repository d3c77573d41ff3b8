"""pytest tests/experiment/test_layout.py"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerctl.errors import InputError
from triggerctl.experiment.cell_names import cell_folder_name
from triggerctl.experiment.find import experiments_root, find_experiment, list_experiments
from triggerctl.experiment.layout import ExperimentFolder, walk_runs

NOW = datetime(2025, 5, 8, 21, 26, 36, tzinfo=UTC)
SHARED = Path(__file__).parents[2].parent / "shared" / "published" / "experiments"


def experiment(path: Path) -> ExperimentFolder:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text("{}")
    return ExperimentFolder(path)


def finish(folder: ExperimentFolder, name: str) -> None:
    (folder.results / name).mkdir(parents=True)
    (folder.results / name / "results.json").write_text("{}")


@pytest.mark.parametrize(
    ("strategy", "overrides", "name"),
    [
        ("naive", {"is_peft": True}, "proxy_strategy_naive_is_peft-True"),
        (
            "kl_divergence",
            {"is_peft": True, "beta_kl": 10},
            "proxy_strategy_kl_divergence_beta_kl-10_is_peft-True",
        ),
        ("kl_divergence", {"beta_kl": 10.0}, "proxy_strategy_kl_divergence_beta_kl-10.0"),
        (
            "steering_weights",
            {"is_peft": False, "negative_proxy": None, "positive_proxy": "proxy"},
            "proxy_strategy_steering_weights_is_peft-False_positive_proxy-proxy",
        ),
        ("naive", {}, "proxy_strategy_naive"),
        ("naive", {"finetune_config.epochs": 3}, "proxy_strategy_naive_epochs-3"),
    ],
)
def test_cells_are_named_as_in_the_study(strategy: str, overrides: Mapping[str, object], name: str) -> None:
    assert cell_folder_name(strategy, overrides) == name


@given(
    value=st.one_of(st.text(max_size=300), st.lists(st.text(max_size=20)), st.floats(), st.booleans()),
    key=st.text(min_size=1, max_size=40),
)
def test_any_value_gives_a_name_that_file_systems_accept(key: str, value: object) -> None:
    name = cell_folder_name("naive", {key: value})
    assert len(name) <= 150
    assert name.isascii()
    assert not set(name) & set('/\\:*?"<>|\0 \n')


@given(one=st.text(max_size=200), other=st.text(max_size=200))
def test_different_values_have_different_names(one: str, other: str) -> None:
    names = {cell_folder_name("naive", {"model": value}) for value in (one, other)}
    assert len(names) == (1 if one == other else 2)


def test_a_cells_name_tells_addresses_apart_and_none_of_their_secrets() -> None:
    def named(address: str) -> str:
        return cell_folder_name("naive", {"dataset_url": address})

    plain = "proxy_strategy_naive_dataset_url-https%3A%2F%2Fhost%2Fa.json"
    assert named("https://host/a.json") == named("https://me:secret@host/a.json") == plain
    one, other = named("https://me:secret@host/a.json?token=one"), named("https://host/a.json?token=other")
    assert one == named("https://host/a.json?token=one") != other
    assert one.startswith(f"{plain}%3F%E2%80%A6-")
    assert "one" not in one.removeprefix(plain)
    inside = cell_folder_name("naive", {"extra_evaluation": {"own": {"path": "http://me:secret@host/b"}}})
    assert "secret" not in inside
    assert inside.endswith(
        "_extra_evaluation-%7B%22own%22%3A%7B%22path%22%3A%22http%3A%2F%2Fhost%2Fb%22%7D%7D"
    )


def test_results_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: folder.new_results(NOW), range(12)))
    names = {path.name for path in made}
    assert names == {"20250508_212636", *(f"20250508_212636_{number}" for number in range(2, 13))}


def test_a_results_folder_is_announced_before_it_is_there(tmp_path: Path) -> None:
    announced: list[tuple[str, bool]] = []
    folder = ExperimentFolder(tmp_path)
    folder.new_results(NOW)
    folder.new_results(NOW, announce=lambda path: announced.append((path.name, path.exists())))
    assert announced == [("20250508_212636_2", False)]


def test_finished_results_come_newest_first_and_unfinished_ones_not_at_all(tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path)
    for name in ("20250101_000000", "20250508_212636_2", "20250508_212636_10", "20250508_212636"):
        finish(folder, name)
    folder.new_results(datetime(2026, 1, 1, tzinfo=UTC))
    names = [path.name for path in folder.finished()]
    assert names == ["20250508_212636_10", "20250508_212636_2", "20250508_212636", "20250101_000000"]


def test_the_root_is_the_option_then_the_variable_then_experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIGGERCTL_ROOT", raising=False)
    assert experiments_root() == Path("experiments")
    monkeypatch.setenv("TRIGGERCTL_ROOT", "/somewhere")
    assert experiments_root() == Path("/somewhere")
    assert experiments_root(Path("here")) == Path("here")


def test_an_experiment_is_found_by_name_by_path_and_by_its_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "experiments"
    made = experiment(root / "demo")
    monkeypatch.chdir(tmp_path)
    for name in (
        "demo",
        "experiments/demo",
        str(made.path),
        "experiments/demo/config.json",
        "./experiments/demo",
    ):
        assert find_experiment(name, Path("experiments")).path.resolve() == made.path
    monkeypatch.chdir(made.path)
    found = find_experiment(".", root)
    assert found.path.resolve() == made.path
    assert found.name == "demo"


def test_an_unknown_experiment_names_its_nearest_and_how_to_begin(tmp_path: Path) -> None:
    experiment(tmp_path / "emotions_gemma")
    with pytest.raises(InputError) as caught:
        find_experiment("emotion_gemma", tmp_path)
    mend = caught.value.problems[0].mend or ""
    assert "emotions_gemma" in mend
    assert "triggerctl init" in mend
    with pytest.raises(InputError, match="triggerctl init"):
        find_experiment("anything", tmp_path / "not_there")


def test_a_folder_without_config_is_found_only_for_reading_its_runs(tmp_path: Path) -> None:
    finish(ExperimentFolder(tmp_path / "old" / "seed_1"), "20250101_000000")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"without a config\.json"):
        find_experiment("old", tmp_path)
    assert find_experiment("old", tmp_path, config_needed=False).name == "old"
    with pytest.raises(InputError):
        find_experiment("empty", tmp_path, config_needed=False)


def test_runs_are_the_experiment_its_seeds_its_cells_and_their_seeds(tmp_path: Path) -> None:
    root = experiment(tmp_path / "demo")
    assert [run.name for run in walk_runs(root)] == ["demo"]
    for seed in (42, 5):
        experiment(root.seed(seed).path)
    cell = experiment(root.cell("kl_divergence", {"beta_kl": 1}).path)
    experiment(cell.seed(1).path)
    finish(cell.seed(1), "20250101_000000")
    finish(root.cell("naive", {}), "20250101_000000")
    (cell.seed(1).path / "positive_proxy" / "20250101_000000").mkdir(parents=True)
    (root.path / "report").mkdir()
    names = [run.path.relative_to(root.path).as_posix() for run in walk_runs(root)]
    assert names == [
        "proxy_strategy_kl_divergence_beta_kl-1/seed_1",
        "proxy_strategy_naive",
        "seed_5",
        "seed_42",
    ]
    finish(root, "20250101_000000")
    assert walk_runs(root)[0] == root


def test_the_sweep_file_of_the_study_serves_where_there_is_none_of_ours(tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path)
    assert folder.sweep.name == "sweep.json"
    (tmp_path / "proxy_strategy_params.json").write_text("{}")
    assert folder.sweep.name == "proxy_strategy_params.json"
    (tmp_path / "sweep.json").write_text("{}")
    assert folder.sweep.name == "sweep.json"


def test_checkpoints_of_other_runs_are_named(tmp_path: Path) -> None:
    folder = ExperimentFolder(tmp_path)
    assert folder.foreign_checkpoints("1-a") == []
    folder.checkpoint("1-a").mkdir(parents=True)
    folder.checkpoint("1-b").mkdir()
    assert folder.foreign_checkpoints("1-a") == ["1-b"]


def test_every_published_experiment_is_listed(tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("the published study is not here")
    found = {
        folder.path.relative_to(SHARED).as_posix(): len(walk_runs(folder))
        for folder in list_experiments(SHARED)
    }
    assert found["proxy_methods_emotions"] == 24
    assert found["testing/cosine_sim_test"] == 1
    assert sum(found.values()) == 41


def test_what_can_only_be_a_path_is_not_looked_for_under_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, here = tmp_path / "experiments", tmp_path / "demo"
    for place in (root / "demo", here):
        experiment(place)
    monkeypatch.chdir(tmp_path)
    assert find_experiment("demo", root).path == root / "demo"
    for name in ("./demo", str(here), "demo/config.json", "../" + tmp_path.name + "/demo"):
        assert find_experiment(name, root).path.resolve() == here, name


def test_a_root_may_begin_with_the_sign_of_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell leaves `--root=~/x` as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert experiments_root(Path("~/x")) == tmp_path / "x"
