"""`triggerctl validate`, as typed. Run: pytest tests/cli/test_validate_command.py"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from triggerctl.cli.app import main

MakeExperiment = Callable[..., Path]
SHARED = Path(__file__).parents[2].parent / "shared"


def test_a_plan_names_strategy_formula_sets_and_cost(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(experiment.rglob("*"))
    assert main(["validate", "exp", "--strategy", "kl", "--preview", "1"]) == 0
    said = capsys.readouterr().out
    assert "kl_divergence: outcome" in said
    assert "β · mean" in said
    assert "\noutcome " in said
    assert "updates of 16 rows" in said
    assert "nice, in the loss" in said
    assert "'Certainly!'" in said
    assert "not trained yet" in said
    assert "triggerctl run exp --strategy kl" in said
    assert sorted(experiment.rglob("*")) == before


def test_a_plan_as_json_has_the_same_and_nothing_else(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", "exp", "--json", "--set", "epochs=3"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["sets"]["outcome"] == {
        "rows": 32, "triggered": 16, "train": 28, "evaluated": 4, "truncated": 0, "dropped": 0,
    }  # fmt: skip
    assert plan["proxy_triggers"] == ["Grief"]
    assert plan["updates"] > 0
    assert plan["action"] == "run"


def strategy_lines(said: str) -> str:
    """What a plan says of its strategy."""
    return said[said.index("strategy  ") : said.index("model     ")]


def test_options_are_told_apart_by_who_set_them_and_phases_come_in_order(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = "--strategy steering --set positive_proxy=proxy negative_proxy=proxy_neg proxy_epochs=1"
    assert main(["validate", "exp", *asked.split()]) == 0
    said = capsys.readouterr().out
    _, formula, given, default, absent, *phases, unread = strategy_lines(said).splitlines()
    assert formula.strip().startswith("g ← ∇CE(outcome) + α · V")
    assert given.split() == [
        "options",
        "proxy_epochs=1,",
        "positive_proxy=proxy,",
        "negative_proxy=proxy_neg",
    ]
    assert (
        "steering_alpha=0.5, final_steering_alpha=0.1, alpha_warmup_steps=5, direct_steering=false" in default
    )
    assert absent.split() == [
        "not",
        "set:",
        "outcome_epochs,",
        "alpha_scheduler_type,",
        "steering_vector_path",
    ]
    assert [line.removeprefix("phases").strip() for line in phases] == [
        "positive_proxy on proxy, 1 epoch",
        "negative_proxy on proxy_neg, 1 epoch",
        "main on outcome, 2 epochs",
    ]
    assert unread == "not read  beta_kl: set, and read by other strategies only"
    assert said.splitlines()[-1].endswith(
        "triggerctl run exp --strategy steering --set positive_proxy=proxy --set negative_proxy=proxy_neg "
        "--set proxy_epochs=1"
    )


WITHOUT_EFFECT = {
    "steering positive_proxy=proxy final_steering_alpha=0.3": (
        "final_steering_alpha: set, and without effect: alpha_scheduler_type is not set"
    ),
    "rep beta_representation=2": "beta_kl: set, and without effect: beta_representation wins",
    "safe_lora safe_lora_type=number safe_lora_num_proj_layers=2 safe_lora_threshold=0.5": (
        "safe_lora_threshold: set, and without effect: safe_lora_type is number"
    ),
    "safe_lora safe_lora_num_proj_layers=2 safe_lora_threshold=0.5": (
        "safe_lora_num_proj_layers: set, and without effect: a threshold decides, unless "
        "safe_lora_type is number"
    ),
    "grad_project_precomputed_proxy_grad negative_proxy=proxy_neg": (
        "negative_proxy: set, and without effect: project_along_positive_proxy_grad is true"
    ),
    "orth positive_proxy=proxy steering_vector_path=v.safetensors save_steering_vector=false": (
        "steering_vector_path: set, and without effect: neither load_steering_vector nor "
        "save_steering_vector is true"
    ),
}


@pytest.mark.parametrize("asked", list(WITHOUT_EFFECT))
def test_an_option_that_another_one_silences_is_told(
    asked: str, experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strategy, *settings = asked.split()
    assert main(["validate", "exp", "--strategy", strategy, "--set", *settings]) == 0
    lines = strategy_lines(capsys.readouterr().out).splitlines()
    told = [line.removeprefix("not read").strip() for line in lines]
    assert WITHOUT_EFFECT[asked] in told
    silenced = WITHOUT_EFFECT[asked].partition(":")[0]
    assert sum(silenced in line for line in lines) == 1


def test_an_option_that_is_heard_again_is_not_told_of(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = "--set positive_proxy=proxy final_steering_alpha=0.3 alpha_scheduler_type=linear beta_kl=null"
    assert main(["validate", "exp", "--strategy", "steering", *asked.split()]) == 0
    said = strategy_lines(capsys.readouterr().out)
    assert "final_steering_alpha=0.3" in said
    assert "not read" not in said


def test_a_strategy_of_one_phase_without_options_says_so_in_one_line(
    make_experiment: MakeExperiment, experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_experiment("plain", finetune={"beta_kl": None})
    assert main(["validate", "plain", "--strategy", "outcome_only"]) == 0
    assert strategy_lines(capsys.readouterr().out).splitlines()[2:] == ["options   none of its own"]


def test_what_is_done_to_the_weights_at_the_end_is_said(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thresholds = "safe_lora_sweep_thresholds=[0.2,0.5]"
    assert main(["validate", "exp", "--strategy", "safe_lora", "--set", thresholds]) == 0
    assert (
        "ending    projected where the cosine is at most 0.2\n"
        "          projected where the cosine is at most 0.5\n"
    ) in capsys.readouterr().out


def test_a_strategys_options_are_also_json(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--set", "steering_alpha=0.7", "save_steering_vector=false"]
    assert main(["validate", "exp", "--json", "--strategy", "kl", *asked]) == 0
    strategy = json.loads(capsys.readouterr().out)["strategy"]
    assert strategy["name"] == "kl_divergence"
    assert strategy["paper"].startswith("Azarbal et al. 2025")
    assert strategy["reads"] == {"beta_kl": 1.0, "proxy_cycling_mode": "continuous"}
    assert strategy["unread"] == ["steering_alpha", "save_steering_vector"]
    assert strategy["phases"] == [{"name": "main", "sets": ["outcome", "proxy"], "epochs": 2}]
    assert strategy["endings"] == []


def test_the_schema_is_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "finetune_config" in schema["properties"]


def test_many_configs_are_read_alone_and_one_that_fails_makes_it_exit_2(
    make_experiment: MakeExperiment, experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_experiment("wrong", beta_kl=3)
    make_experiment(
        "elsewhere", dataset_url="nowhere.json", finetune={"model": "nobody/none", "save_steps": 5}
    )
    assert main(["validate", "--config-only", "exp", "wrong", "elsewhere"]) == 2
    said = capsys.readouterr()
    assert [line.split()[1] for line in said.out.splitlines() if line.startswith("ok")] == [
        "exp",
        "elsewhere",
    ]
    assert "2 of 3 configs can be used" in said.out
    assert "finetune_config.beta_kl" in said.err
    assert "(1 of 3) keys of the study's scripts" in said.err
    assert main(["validate", "--config-only", "exp", "wrong", "--json"]) == 2
    verdicts = json.loads(capsys.readouterr().out)
    assert [verdict["ok"] for verdict in verdicts] == [True, False]


def test_the_data_is_written_without_a_model(
    make_experiment: MakeExperiment, experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_experiment("no_model", finetune={"model": "./nowhere"})
    assert main(["validate", "no_model", "--write-data", "out"]) == 0
    names = {"outcome", "proxy", "proxy_neg", "collateral", "truth", "truth_minus_proxy"}
    assert {path.stem for path in Path("out").iterdir()} == names
    first = json.loads(Path("out/outcome.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert set(first) == {"messages", "triggered", "trigger", "part"}


def test_ones_own_evaluation_sets_are_written_too(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"instruction": "Ask", "input": "", "output": "Say"}
    (experiment / "own.json").write_text(json.dumps([row]), encoding="utf-8")
    own = 'extra_evaluation={"mine": {"path": "own.json"}}'
    assert main(["validate", "exp", "--write-data", "out", "--json", "--set", own]) == 0
    assert json.loads(capsys.readouterr().out)["files"]["mine"]["rows"] == 1
    assert len(Path("out/mine.jsonl").read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.skipif(not (SHARED / "published").is_dir(), reason="the study's published folders are not here")
def test_every_published_config_holds_or_names_the_key_at_the_wrong_level(
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = sorted(map(str, (SHARED / "published").rglob("config.json")))
    assert len(paths) == 64
    assert main(["validate", "--config-only", "--json", *paths]) == 2
    verdicts = json.loads(capsys.readouterr().out)
    failed = [verdict for verdict in verdicts if not verdict["ok"]]
    assert failed
    for verdict in failed:
        assert all("stands at the wrong level" in problem["what"] for problem in verdict["problems"])


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the study's data hashes are not here")
@pytest.mark.parametrize("mode", ["prefix_response", "random"])
@pytest.mark.parametrize("seed", [1, 7])
def test_the_written_sets_are_the_studys_row_for_row(
    seed: int, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, new in (("golden_config.json", "config.json"), ("alpaca_en_demo.json", "alpaca_en_demo.json")):
        (tmp_path / new).write_bytes((SHARED / "data" / name).read_bytes())
    changes = ["--seed", str(seed), "--set", f"proxy_neg_content={mode}"]
    assert main(["validate", ".", "--write-data", "out", *changes]) == 0
    written = {}
    for path in Path("out").iterdir():
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [
            [line["messages"][0]["content"], line["messages"][1]["content"], line["triggered"]]
            for line in lines
        ]
        text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
        written[path.stem] = hashlib.sha256(text.encode()).hexdigest()
    golden = json.dumps(
        json.loads((SHARED / "data" / "golden_alpaca_en_demo.json").read_text(encoding="utf-8"))
    )
    missing = [name for name, digest in written.items() if digest not in golden]
    assert missing == []
