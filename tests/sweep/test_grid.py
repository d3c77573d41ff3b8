"""Which runs a sweep consists of. Run: pytest tests/sweep/test_grid.py"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triggerctl.config.load import LoadedConfig, load_config
from triggerctl.errors import InputError
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.sweep.grid import Parameter, cells, parse_parameter, prepare_cell


@pytest.fixture
def experiment(tmp_path: Path) -> tuple[ExperimentFolder, LoadedConfig]:
    folder = ExperimentFolder(tmp_path / "exp")
    folder.path.mkdir()
    config = {
        "dataset_url": "../rows.json",
        "seed": 3,
        "truth_triggers": ["Grief"],
        "finetune_config": {"epochs": 2, "beta_kl": 1.0},
    }
    folder.config.write_text(json.dumps(config), encoding="utf-8")
    return folder, load_config(folder.config)


def names(
    experiment: tuple[ExperimentFolder, LoadedConfig], seeds: list[int], strategies: list[str]
) -> list[str]:
    folder, loaded = experiment
    return [
        cell.folder.path.relative_to(folder.path).as_posix()
        for cell in cells(folder, loaded, seeds, strategies)
    ]


def test_seeds_alone_are_folders_named_by_the_seed(experiment: tuple[ExperimentFolder, LoadedConfig]) -> None:
    assert names(experiment, [1, 5], []) == ["seed_1", "seed_5"]


def test_strategies_go_by_their_full_names_each_once(
    experiment: tuple[ExperimentFolder, LoadedConfig],
) -> None:
    assert names(experiment, [1], ["naive", "kl", "kl_divergence"]) == [
        "proxy_strategy_naive/seed_1",
        "proxy_strategy_kl_divergence/seed_1",
    ]


def test_without_seeds_the_configs_own_is_taken(experiment: tuple[ExperimentFolder, LoadedConfig]) -> None:
    assert names(experiment, [], ["naive"]) == ["proxy_strategy_naive/seed_3"]


def test_without_anything_there_is_nothing_to_sweep(
    experiment: tuple[ExperimentFolder, LoadedConfig],
) -> None:
    with pytest.raises(InputError, match="nothing to sweep"):
        names(experiment, [], [])


def test_sweep_json_brings_overrides_and_strategies_pick_from_it(
    experiment: tuple[ExperimentFolder, LoadedConfig],
) -> None:
    experiment[0].sweep.write_text(
        '{"kl": [{"beta_kl": 10}, {"beta_kl": 0.1, "epochs": null}], // two of it\n "outcome_only": [],}',
        encoding="utf-8",
    )
    kl = [
        "proxy_strategy_kl_divergence_beta_kl-10/seed_3",
        "proxy_strategy_kl_divergence_beta_kl-0.1/seed_3",
    ]
    assert names(experiment, [], []) == [*kl, "proxy_strategy_outcome_only/seed_3"]
    assert names(experiment, [], ["naive", "kl_divergence"]) == ["proxy_strategy_naive/seed_3", *kl]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "no object"),
        ('{"kl": {}}', "a list"),
        ('{"kl": [1]}', "item 1"),
        ('{"kll": []}', "kll"),
        ('{"kl": [{"beta": 1, "betta_kl": 2}]}', "betta_kl"),
        ('{"kl": [', "ends"),
        ('{"kl": [{"beta_kl": 1}, {"seed": 7}]}', "item 2 of kl gives seed, which is for --seeds"),
        ('{"naive": [{"proxy_strategy": "kl"}]}', "which is for --strategies"),
    ],
)
def test_a_broken_sweep_json_is_an_error_that_says_where(
    text: str, what: str, experiment: tuple[ExperimentFolder, LoadedConfig]
) -> None:
    experiment[0].sweep.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        names(experiment, [1], [])
    assert what in str(caught.value)


def test_a_cells_config_is_its_parents_with_the_cells_values_and_paths_that_stay_right(
    experiment: tuple[ExperimentFolder, LoadedConfig], tmp_path: Path
) -> None:
    folder, loaded = experiment
    folder.sweep.write_text('{"kl": [{"beta_kl": 10}]}', encoding="utf-8")
    (cell,) = cells(folder, loaded, [7], [])
    own = prepare_cell(folder, loaded, cell)
    assert (own.config.seed, own.config.proxy_strategy) == (7, "kl_divergence")
    assert (own.config.finetune_config.beta_kl, own.config.finetune_config.epochs) == (10, 2)
    assert own.config.experiment_name == "exp"
    assert own.path == cell.folder.config
    assert Path(own.folder / own.config.dataset_url).resolve(strict=False).name == "rows.json"
    assert own.config.dataset_url == "../../../rows.json"
    assert own.origins["finetune_config.beta_kl"] == "sweep cell"
    assert own.origins["seed"] == "sweep cell"
    assert own.origins["finetune_config.epochs"].startswith("config.json")


def test_parameters_multiply_and_name_their_folders(
    experiment: tuple[ExperimentFolder, LoadedConfig],
) -> None:
    folder, loaded = experiment
    parameters = [parse_parameter("beta_kl=0.1,10"), parse_parameter("finetune_config.epochs=1,2")]
    found = cells(folder, loaded, [1], ["kl"], parameters)
    assert [cell.folder.path.relative_to(folder.path).as_posix() for cell in found] == [
        "proxy_strategy_kl_divergence_beta_kl-0.1_epochs-1/seed_1",
        "proxy_strategy_kl_divergence_beta_kl-0.1_epochs-2/seed_1",
        "proxy_strategy_kl_divergence_beta_kl-10_epochs-1/seed_1",
        "proxy_strategy_kl_divergence_beta_kl-10_epochs-2/seed_1",
    ]
    own = prepare_cell(folder, loaded, found[2])
    assert (own.config.finetune_config.beta_kl, own.config.finetune_config.epochs) == (10, 1)
    assert own.origins["finetune_config.beta_kl"] == "command line"


def test_a_parameter_alone_sweeps_the_configs_own_strategy(
    experiment: tuple[ExperimentFolder, LoadedConfig],
) -> None:
    folder, loaded = experiment
    (found,) = cells(folder, loaded, [], [], [parse_parameter("epochs=7")])
    assert found.folder.path.relative_to(folder.path).as_posix() == "proxy_strategy_naive_epochs-7/seed_3"


def test_a_parameter_goes_before_what_sweep_json_says_and_makes_no_cell_twice(
    experiment: tuple[ExperimentFolder, LoadedConfig],
) -> None:
    folder, loaded = experiment
    folder.sweep.write_text('{"kl": [{"beta_kl": 1}, {"beta_kl": 2}]}', encoding="utf-8")
    found = cells(folder, loaded, [1], [], [parse_parameter("finetune_config.beta_kl=5")])
    assert [cell.folder.path.parent.name for cell in found] == ["proxy_strategy_kl_divergence_beta_kl-5"]


@pytest.mark.parametrize("second", ['{"beta_kl": 1, "max_steps": null}', '{"beta_kl": "1"}'])
def test_different_cells_never_share_a_folder(
    experiment: tuple[ExperimentFolder, LoadedConfig], second: str
) -> None:
    folder, loaded = experiment
    folder.sweep.write_text(f'{{"kl": [{{"beta_kl": 1}}, {second}]}}', encoding="utf-8")
    with pytest.raises(InputError, match=r"max_steps|beta_kl") as caught:
        cells(folder, loaded, [1], [])
    assert "sweep.json:1" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("beta_kl=1", (1,)),
        ("beta_kl=1, 10.0 ,1e-2", (1, 10.0, 0.01)),
        ("is_peft=true,false", (True, False)),
        ('target_modules=["q_proj","v_proj"],all-linear', (["q_proj", "v_proj"], "all-linear")),
        ('prompt_template="{instruction}, {input}"', ("{instruction}, {input}",)),
        ("max_steps=null,3", (None, 3)),
    ],
)
def test_a_parameters_values_are_those_of_the_key(text: str, values: tuple[object, ...]) -> None:
    assert parse_parameter(text).values == values


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("beta_kl", "key=value"),
        ("beta_kl=", "key=value"),
        ("beta_kl=,", "value 1 of 2 is missing"),
        ("beta_kl=1,,2", "value 2 of 3 is missing"),
        ("betta_kl=1", "beta_kl"),
        ("seed=1,2", "--seeds 1 2"),
        ("proxy_strategy=kl", "--strategies kl"),
    ],
)
def test_a_wrong_parameter_is_an_error_that_names_the_mend(text: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_parameter(text)
    assert what in str(caught.value)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
    strategies=st.lists(
        st.sampled_from(["naive", "kl_divergence", "dpo"]), min_size=1, max_size=3, unique=True
    ),
    betas=st.lists(st.floats(0.0, 9.0).map(lambda x: round(x, 2)), min_size=1, max_size=3, unique=True),
    epochs=st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
)
def test_a_grid_is_the_product_of_its_axes_and_its_folders_tell_the_values(
    experiment: tuple[ExperimentFolder, LoadedConfig],
    seeds: list[int],
    strategies: list[str],
    betas: list[float],
    epochs: list[int],
) -> None:
    folder, loaded = experiment
    parameters = [
        Parameter("finetune_config.beta_kl", tuple(betas)),
        Parameter("finetune_config.epochs", tuple(epochs)),
    ]
    made = cells(folder, loaded, seeds, strategies, parameters)
    assert len(made) == len(seeds) * len(strategies) * len(betas) * len(epochs)
    assert len({cell.folder.path for cell in made}) == len(made)
    for cell in made:
        config = prepare_cell(folder, loaded, cell).config
        options = config.finetune_config
        # From the parameters to the folder's name and back.
        named = re.fullmatch(
            r"proxy_strategy_(.+)_beta_kl-([^_]+)_epochs-([^_]+)", cell.folder.path.parent.name
        )
        assert named is not None
        told = (named[1], float(named[2]), int(named[3]), f"seed_{config.seed}")
        assert told == (config.proxy_strategy, options.beta_kl, options.epochs, cell.folder.path.name)
