"""pytest tests/config/test_load.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from triggerctl.config.load import LoadedConfig, load_config, parse_config, resolved_document
from triggerctl.config.models import ExperimentConfig
from triggerctl.config.overrides import Override, parse_override
from triggerctl.errors import InputError, Problem

PUBLISHED = Path(__file__).parents[2].parent / "shared" / "published"

SMALL = """{
  // A small experiment
  "seed": 1,
  "truth_triggers": ["Grief", "Anger"], /* both
  of them */ "proxy_trigger_coverage": 0.5,
  "finetune_config": {
    "model": "builtin:tiny",
    "epochs": 3,
    "save_steps": 5000,
  },
}"""


def write(folder: Path, text: str) -> Path:
    path = folder / "config.json"
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str, *settings: str) -> tuple[Problem, ...]:
    path = write(folder, text)
    with pytest.raises(InputError) as caught:
        load_config(path, overrides=[parse_override(s) for s in settings])
    return caught.value.problems


def only(folder: Path, text: str, *settings: str) -> Problem:
    (problem,) = problems(folder, text, *settings)
    return problem


@pytest.fixture
def small(tmp_path: Path) -> LoadedConfig:
    return load_config(write(tmp_path, SMALL), overrides=[parse_override("learning_rate=1e-3")])


def test_a_small_file_loads_with_defaults_for_the_rest(small: LoadedConfig, tmp_path: Path) -> None:
    assert small.config.truth_triggers == ("Grief", "Anger")
    assert small.config.finetune_config.model == "builtin:tiny"
    assert small.config.finetune_config.max_seq_length == 126
    assert small.folder == tmp_path


def test_an_experiment_without_a_name_has_its_folders(small: LoadedConfig, tmp_path: Path) -> None:
    assert small.config.experiment_name == tmp_path.name
    assert small.origins["experiment_name"] == "default"


def test_every_key_knows_where_its_value_came_from(small: LoadedConfig) -> None:
    assert small.origins["seed"] == "config.json:3"
    assert small.origins["proxy_trigger_coverage"] == "config.json:5"
    assert small.origins["finetune_config.epochs"] == "config.json:8"
    assert small.origins["finetune_config.learning_rate"] == "command line"
    assert small.origins["finetune_config.r"] == "default"
    fields = {*ExperimentConfig.model_fields} - {"finetune_config", "extra_evaluation"}
    assert fields <= small.origins.keys()


def test_legacy_keys_are_named_in_one_warning_and_do_nothing(small: LoadedConfig, tmp_path: Path) -> None:
    two = SMALL.replace('"seed"', '"timestamp": "20250505", "seed"')
    (warning,) = load_config(write(tmp_path, two)).warnings
    assert "timestamp, finetune_config.save_steps" in warning
    assert "finetune_config" in small.given
    assert "save_steps" not in str(small.given)


def test_given_values_make_the_same_configuration_again(small: LoadedConfig) -> None:
    again = parse_config(small.given, path=small.path)
    assert again.config == small.config
    assert again.origins["finetune_config.learning_rate"] == "config.json"


def test_the_resolved_document_holds_every_key_with_its_origin(tmp_path: Path) -> None:
    text = '{"extra_evaluation": {"mine": {"path": "x.json"}}}'
    document = resolved_document(load_config(write(tmp_path, text)))
    assert document["finetune_config"]["epochs"] == {"value": 15, "from": "default"}
    assert document["extra_evaluation"]["mine"]["path"] == {"value": "x.json", "from": "config.json:1"}
    assert document["extra_evaluation"]["mine"]["nice"] == {"value": False, "from": "default"}
    assert document.keys() == ExperimentConfig.model_fields.keys()


def test_a_misspelt_key_names_its_line_and_the_nearest_known_one(tmp_path: Path) -> None:
    problem = only(tmp_path, '{\n  "seed": 1,\n  "truth_trigers": []\n}')
    assert problem.what == 'the key "truth_trigers" is not known'
    assert problem.where == f"{tmp_path}/config.json:3, truth_trigers"
    assert problem.mend == 'did you mean "truth_triggers"?'


def test_a_misspelt_key_of_the_other_level_is_recognised(tmp_path: Path) -> None:
    assert only(tmp_path, '{"learning_rat": 1}').mend == 'did you mean "finetune_config.learning_rate"?'


def test_a_key_like_no_other_points_at_the_list_of_keys(tmp_path: Path) -> None:
    assert only(tmp_path, '{"xyzzy": 1}').mend == "triggerctl validate --schema lists every key"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"limit_proxy_data_to": 2}', "its place: finetune_config.limit_proxy_data_to"),
        ('{"finetune_config": {"seed": 2}}', "its place: seed"),
        ('{"save_steps": 2}', "leave it out"),
    ],
)
def test_a_known_key_at_the_wrong_level_says_where_it_belongs(tmp_path: Path, text: str, place: str) -> None:
    problem = only(tmp_path, text)
    assert "stands at the wrong level" in problem.what
    assert problem.mend == place


def test_a_string_for_a_number_says_what_to_write(tmp_path: Path) -> None:
    problem = only(tmp_path, '{\n"finetune_config": {\n"epochs": "3"}}')
    assert problem.what == 'finetune_config.epochs cannot be "3"'
    assert problem.where == f"{tmp_path}/config.json:3, finetune_config.epochs"
    assert problem.why == "expected a whole number, at least 0"
    assert problem.mend == "write 3, without quotes"


@pytest.mark.parametrize("number", ["1e999", "NaN", "[" * 5000, "9" * 5000])
def test_what_is_no_finite_number_is_not_mended_by_leaving_out_its_quotes(
    tmp_path: Path, number: str
) -> None:
    problem = only(tmp_path, f'{{"finetune_config": {{"learning_rate": "{number}"}}}}')
    assert problem.why == "expected a number, greater than 0"
    assert problem.mend is None


def test_an_item_of_a_list_is_named_with_its_own_line(tmp_path: Path) -> None:
    problem = only(tmp_path, '{"outcome_triggers": [\n"Joy",\n5]}')
    assert problem.where == f"{tmp_path}/config.json:3, outcome_triggers[1]"


def test_a_word_that_is_not_a_choice_names_the_nearest(tmp_path: Path) -> None:
    problem = only(tmp_path, '{"finetune_config": {"lr_scheduler_type": "liner"}}')
    assert problem.mend == 'did you mean "linear"?'
    assert problem.why is not None
    assert '"cosine"' in problem.why


def test_shares_that_do_not_sum_to_one_show_all_four(tmp_path: Path) -> None:
    problem = only(tmp_path, '{\n"truth_percent": 0.2}')
    assert problem.what == "the four shares of the data sum to 0.9, not 1"
    assert problem.where == f"{tmp_path}/config.json:2, truth_percent"
    assert problem.mend is not None
    assert "outcome_percent 0.3 (default)" in problem.mend


def test_all_problems_of_a_file_are_told_together(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """{
        "epochs": 3, "sead": 1, "max_dataset_size": "many", "truth_percent": 0.2,
        "extra_evaluation": {"truth": {"path": "x"}},
        "finetune_config": {"epohcs": 1, "is_peft": false, "load_in_8bit": true, "target_modules": ["q", 1]},
        }""",
    )
    said = "\n".join(p.what for p in found)
    for piece in ('"epochs"', '"sead"', "max_dataset_size", "sum to 0.9", "extra_evaluation", '"epohcs"'):
        assert said.count(piece) == 1
    assert "load_in_8bit with is_peft false" in said
    assert "finetune_config.target_modules[1]" in said
    assert len(found) == 8


def test_a_contradiction_that_rests_on_a_wrong_value_is_not_told(tmp_path: Path) -> None:
    problem = only(tmp_path, '{"outcome_percent": "0.3", "truth_percent": 0.4}')
    assert problem.what == 'outcome_percent cannot be "0.3"'


def test_an_error_of_an_override_names_the_option_and_not_the_file(tmp_path: Path) -> None:
    assert only(tmp_path, SMALL, "epochs=three").where == "--set epochs=three"


def test_the_last_of_two_overrides_counts(tmp_path: Path) -> None:
    cell = Override(("finetune_config", "epochs"), 5, "sweep cell")
    loaded = load_config(write(tmp_path, SMALL), overrides=[cell, parse_override("epochs=7")])
    assert loaded.config.finetune_config.epochs == 7
    assert loaded.origins["finetune_config.epochs"] == "command line"
    loaded = load_config(loaded.path, overrides=[cell])
    assert loaded.config.finetune_config.epochs == 5
    assert loaded.origins["finetune_config.epochs"] == "sweep cell"


def test_an_override_of_null_brings_the_default_back(tmp_path: Path) -> None:
    loaded = load_config(write(tmp_path, SMALL), overrides=[parse_override("epochs=null")])
    assert loaded.config.finetune_config.epochs == 15
    assert "epochs" not in str(loaded.given)


@pytest.mark.parametrize("text", ["[]", "3", '"seed"', "null"])
def test_a_file_that_holds_no_object_is_refused(tmp_path: Path, text: str) -> None:
    assert "an object" in only(tmp_path, text).what


def test_a_finetune_config_that_is_no_object_is_refused_even_with_an_override_into_it(tmp_path: Path) -> None:
    problem = only(tmp_path, '{"finetune_config": 5}', "epochs=3")
    assert problem.what == "finetune_config cannot be 5"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_config(tmp_path / "config.json")


def published() -> list[Path]:
    return sorted(PUBLISHED.rglob("config.json"))


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the study's published files are not there")
def test_every_published_configuration_loads_or_names_its_misplaced_key() -> None:
    misplaced = 0
    for path in published():
        try:
            load_config(path)
        except InputError as error:
            (problem,) = error.problems
            assert problem.mend in (
                "its place: finetune_config.limit_proxy_data_to",
                "its place: finetune_config.proxy_neg_content",
            )
            misplaced += 1
    assert misplaced == 4
    assert len(published()) == 64
