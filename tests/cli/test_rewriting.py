"""Values changed where they stand in a config's text. Run: pytest tests/cli/test_rewriting.py"""

from __future__ import annotations

import pytest

from triggerctl.cli.rewriting import with_values
from triggerctl.cli.templates import templates
from triggerctl.config.jsonc import parse

TEXT = """// what it is for
{
  "seed": 1, // decides "everything"
  "triggers": ["a, b", {"x": [1]}], /* { not a key: } */
  "finetune_config": {
    "epochs": 4, // many
    "model": "m"  // the last, without a comma
  }
}
"""


def test_a_value_changes_and_every_comment_stays() -> None:
    changed = with_values(TEXT, {("seed",): 5, ("finetune_config", "epochs"): 2})
    assert changed == TEXT.replace('"seed": 1', '"seed": 5').replace('"epochs": 4', '"epochs": 2')


def test_a_new_key_is_added_at_the_end_of_its_object() -> None:
    changed = with_values(
        TEXT, {("finetune_config", "beta_kl"): 0.5, ("nice_responses",): ["Sure!", "“Yes”"]}
    )
    value = parse(changed, "text").value
    assert isinstance(value, dict)
    assert value["finetune_config"] == {"epochs": 4, "model": "m", "beta_kl": 0.5}
    assert value["nice_responses"] == ["Sure!", "“Yes”"]
    assert changed.count("//") == TEXT.count("//")
    assert '"model": "m",  // the last' in changed


@pytest.mark.parametrize(
    "text", ["{}", "{ // nothing\n}", '{"a": 1,}', '{"a": 1, // c\n}', '{\n  "a": {},\n}\n']
)
def test_a_nested_key_is_added_whatever_stands_there(text: str) -> None:
    changed = with_values(text, {("finetune_config", "epochs"): 3})
    value = parse(changed, "text").value
    assert isinstance(value, dict)
    assert value["finetune_config"] == {"epochs": 3}
    assert {key: held for key, held in value.items() if key != "finetune_config"} == parse(text, "text").value


def test_null_and_lists_and_objects_are_written_as_json() -> None:
    changed = with_values(TEXT, {("triggers",): None, ("extra_evaluation",): {"mine": {"path": "x.json"}}})
    value = parse(changed, "text").value
    assert isinstance(value, dict)
    assert value["triggers"] is None
    assert value["extra_evaluation"] == {"mine": {"path": "x.json"}}


@pytest.mark.parametrize("name", list(templates()))
def test_every_template_keeps_its_comments_when_changed(name: str) -> None:
    text = templates()[name].config.read_text(encoding="utf-8")
    changed = with_values(text, {("seed",): 77, ("finetune_config", "weight_decay"): 0.25})
    value = parse(changed, name).value
    assert isinstance(value, dict)
    assert value["seed"] == 77
    assert value["finetune_config"]["weight_decay"] == 0.25
    assert changed.count("//") == text.count("//")
