"""`triggerctl init`, as typed. Run: pytest tests/cli/test_init_command.py"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from triggerctl.cli.app import main
from triggerctl.cli.strategy_view import OF_SOME_STRATEGIES
from triggerctl.cli.templates import templates
from triggerctl.config.load import load_config
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.strategies import names, strategy_class
from triggerctl.sweep.grid import cells, prepare_cell
from triggerctl.training.plan import check_config


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIGGERCTL_ROOT", raising=False)


def test_every_template_makes_a_config_that_loads_and_says_what_it_is_for() -> None:
    assert "minimal" in templates()
    for name, template in templates().items():
        assert template.summary
        assert main(["init", f"from_{name}", "--template", name]) == 0
        config = load_config(Path("experiments") / f"from_{name}" / "config.json").config
        assert config.experiment_name == f"from_{name}"


def test_the_next_commands_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "exp", "--template", "minimal", "--root", "there"]) == 0
    said = capsys.readouterr().out
    assert "triggerctl validate exp --root there" in said
    assert Path("there/exp/config.json").is_file()


def test_a_list_of_templates_is_also_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {entry["name"] for entry in listed} == set(templates())
    shown = {entry["name"]: entry["strategies"] for entry in listed}
    assert shown["quickstart"] == ["naive"]
    assert shown["emotions-gemma-kl"] == ["kl_divergence", "naive", "representation_constraint"]


def test_the_list_names_each_templates_strategies_beside_its_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["init", "--list"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    place = lines.index("emotions-gemma-kl kl_divergence, naive, representation_constraint")
    # A narrow terminal wraps it.
    assert templates()["emotions-gemma-kl"].summary.startswith(lines[place + 1])


def test_the_template_strategies_shows_every_strategy_once() -> None:
    assert sorted(templates()["strategies"].strategies) == sorted(names())


@pytest.mark.parametrize("name", list(templates()))
def test_every_run_of_a_template_passes_the_checks_of_its_strategy(name: str) -> None:
    """And is what it says: each key that a cell sets is read, and none is plain training in disguise."""
    assert main(["init", "exp", "--template", name]) == 0
    folder = ExperimentFolder(Path("experiments/exp"))
    parent = load_config(folder.config)
    swept = cells(folder, parent, [1], []) if folder.sweep.is_file() else []
    for loaded in (parent, *(prepare_cell(folder, parent, cell) for cell in swept)):
        config, warnings = check_config(loaded)
        assert not [text for text in warnings if "plain training" in text]
        own = {key.rpartition(".")[2] for key, origin in loaded.origins.items() if origin == "sweep cell"}
        assert own & OF_SOME_STRATEGIES <= strategy_class(config.proxy_strategy).reads
    assert len({cell.folder.path for cell in swept}) == len(swept)


def test_model_dataset_and_set_point_it_at_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("[]", encoding="utf-8")
    (tmp_path / "models" / "m").mkdir(parents=True)
    line = "init exp --template minimal --dataset mine.json --model models/m"
    assert main([*line.split(), "--set", "epochs=3", "beta_kl=0.5", "--set", "seed=9"]) == 0
    file = Path("experiments/exp/config.json")
    config = load_config(file).config
    assert (file.parent / config.dataset_url).resolve() == tmp_path / "mine.json"
    assert (file.parent / config.finetune_config.model).resolve() == tmp_path / "models" / "m"
    assert (config.finetune_config.epochs, config.finetune_config.beta_kl, config.seed) == (3, 0.5, 9)
    assert "//" in file.read_text(encoding="utf-8")


def test_what_is_there_is_replaced_only_with_force(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "exp", "--template", "minimal"]) == 0
    file = Path("experiments/exp/config.json")
    file.write_text("mine", encoding="utf-8")
    assert main(["init", "exp", "--template", "minimal"]) == 2
    assert "--force" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == "mine"
    assert main(["init", "exp", "--template", "minimal", "--force"]) == 0
    assert load_config(file).config.seed == 1


def test_the_files_made_are_also_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "exp", "--template", "strategies", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["made"]
    assert made == [str(Path("experiments/exp", name)) for name in ("config.json", "sweep.json")]


def test_an_old_list_of_runs_is_neither_dropped_nor_kept_in_silence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["init", "exp", "--template", "strategies"]) == 0
    before = {path: path.read_bytes() for path in Path("experiments/exp").iterdir()}
    assert main(["init", "exp", "--template", "minimal", "--force"]) == 2
    assert "sweep.json" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("experiments/exp").iterdir()} == before


def test_the_help_shows_what_init_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "demo"]) == 0
    said = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert main(["init", "--help"]) == 0
    helped = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert set(said) <= set(helped)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("init exp --template minimul", "did you mean 'minimal'?"),
        ("init exp --template minimal --set epochz=3", "epochz"),
        ("init exp --template minimal --set epochs=x", "epochs"),
        ("init exp --template minimal --set epochs", "key=value"),
        ("init exp --template minimal --set outcome_percent=0.9", "sum to 1.5"),
        ("init exp --template minimal --dataset missing.json", "missing.json"),
        ("init --template minimal", "no name"),
    ],
)
def test_wrong_input_is_one_block_and_writes_nothing(
    line: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    said = capsys.readouterr()
    assert what in said.err
    assert "Traceback" not in said.err
    assert list(tmp_path.iterdir()) == []
