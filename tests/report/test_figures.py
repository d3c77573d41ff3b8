"""What the figures of a report hold, read from their traces.

pytest tests/report/test_figures.py"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from written_experiments import KL, NAIVE, OUTCOME_ONLY, make_config, make_results, write_run, write_sweep

from triggerctl.experiment.results import Count, TriggerctlResults
from triggerctl.report.accuracy_bars import accuracy_figure
from triggerctl.report.collect import collect
from triggerctl.report.comparisons import SEPARATION, Comparison
from triggerctl.report.differences import differences_figure
from triggerctl.report.drawing import DARK
from triggerctl.report.figures import FIGURES, report_figures
from triggerctl.report.headline import baseline_of
from triggerctl.report.images import write_images
from triggerctl.report.learning_curves import band, losses_over_epochs, rates_over_epochs
from triggerctl.report.pareto import frontier
from triggerctl.report.rows import Group, RunRow
from triggerctl.report.scene import Scene, scene
from triggerctl.report.statistics import Interval
from triggerctl.report.trade_off import habit_interval, trade_off_figure
from triggerctl.report.trigger_heatmap import blocks, triggers_figure

SHARED = Path(__file__).parents[2].parent / "shared" / "published" / "experiments"
HOSTILE = "<b>x</b><script>alert(1)</script> & \"'\u202eright 😀"
Cells = Mapping[str, Mapping[int, Mapping[str, float]]]
SWEEP: Cells = {"naive": NAIVE, "kl_divergence": KL, "outcome_only": OUTCOME_ONLY}


def scene_of(folder: Path, comparisons: tuple[Comparison, ...] = ()) -> Scene:
    groups = collect([folder]).groups
    return scene(groups, baseline_of(groups, None), comparisons)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return scene_of(write_sweep(tmp_path_factory.mktemp("sweep") / "demo", SWEEP))


def drawn(figure: go.Figure | None) -> go.Figure:
    assert figure is not None
    return figure


def traces(figure: go.Figure | None, name: str) -> list[Any]:
    return [trace for trace in drawn(figure).data if trace.name == name]


def words(figure: go.Figure) -> str:
    return " | ".join(str(note.text) for note in figure.layout.annotations)


def compared(group: str, name: str, differences: tuple[float, ...], **values: Any) -> Comparison:
    given = {"over_seeds": None, "over_words": None, "p": None, "p_holm": None, "seeds_to_settle": None}
    return Comparison(
        group=group,
        baseline="naive",
        set=name,
        seeds=tuple(range(1, len(differences) + 1)),
        differences=differences,
        mean=sum(differences) / len(differences),
        **{**given, **values},
    )


def write_values(folder: Path, values: list[float], **more: Any) -> Path:
    for number, value in enumerate(values):
        write_run(
            folder / f"proxy_strategy_kl_divergence_beta_kl-{number}" / "seed_1",
            make_results("kl_divergence", 1, KL[1]),
            make_config("kl_divergence", 1, beta_kl=value, **more),
        )
    return folder


# The trade-off plane


def test_the_plane_sets_the_habit_against_the_leak(sweep: Scene) -> None:
    figure = trade_off_figure(sweep)
    [naive], [only] = traces(figure, "naive"), traces(figure, "outcome_only")
    assert naive.x[0] == pytest.approx((12 + 26 + 78) / 360)
    assert naive.y[0] == pytest.approx((1 + 1 + (71 / 72 + 95 / 96) / 2) / 3)
    assert only.y[0] == pytest.approx(1.0)
    [ring] = traces(figure, "baseline")
    assert (ring.x[0], ring.y[0]) == (naive.x[0], naive.y[0])
    assert "naive, baseline" in words(drawn(figure))


def test_every_seed_stands_in_the_plane_and_intervals_go_both_ways(sweep: Scene) -> None:
    figure = drawn(trade_off_figure(sweep))
    seeds = [trace for trace in figure.data if trace.customdata is not None]
    assert [list(trace.customdata) for trace in seeds] == [[1, 5, 42]] * 3
    arms = [trace for trace in figure.data if trace.error_x.array is not None]
    naive = next(group for group in sweep.groups if group.name == "naive")
    leak = naive.interval("truth_minus_proxy")
    assert leak is not None
    limits = {(t.x[0] - t.error_x.arrayminus[0], t.x[0] + t.error_x.array[0]) for t in arms}
    assert any(found == pytest.approx((leak.low, leak.high)) for found in limits)
    assert any(trace.error_y.array is not None for trace in figure.data)


def test_the_interval_of_the_habit_is_over_the_seeds_that_its_two_parts_share(sweep: Scene) -> None:
    kl = next(group for group in sweep.groups if group.name == "kl")
    summary = kl.summary("outcome", "collateral")
    assert summary is not None
    assert habit_interval(kl) == summary.interval
    assert summary.mean == pytest.approx(sum(run.habit or 0 for run in kl.runs) / 3)


def test_the_interval_of_one_runs_habit_is_the_mean_of_its_two_parts(sweep: Scene) -> None:
    group = next(group for group in sweep.groups if group.name == "kl")
    kl = group.model_copy(update={"runs": group.runs[:1]})
    whole, parts = habit_interval(kl), [kl.interval("outcome"), kl.interval("collateral")]
    assert whole is not None
    assert whole.low == pytest.approx(sum(part.low for part in parts if part) / 2)
    assert whole.high == pytest.approx(sum(part.high for part in parts if part) / 2)


def test_the_frontier_is_drawn_through_the_groups_that_nothing_dominates(sweep: Scene) -> None:
    figure = drawn(trade_off_figure(sweep))
    [line] = traces(figure, "Pareto frontier")
    corners = set(zip(line.x, line.y, strict=True))
    means = {name: (t.x[0], t.y[0]) for name in ("naive", "kl", "outcome_only") for t in traces(figure, name)}
    best = frontier(means)
    assert all(means[name] in corners for name in best)
    assert "Pareto frontier" in words(figure)
    # No group lies beyond the border.
    for leak, habit in means.values():
        assert not any(leak < x and habit > y for x, y in corners if x > min(line.x) or y > min(line.y))


def test_a_strategys_values_are_joined_in_their_order_and_its_ends_named(tmp_path: Path) -> None:
    values = [100.0, 0.5, 10.0]
    root = tmp_path / "exp"
    for value in values:
        rates = {**KL[1], "truth_minus_proxy": 0.5 / (1 + value), "collateral": 1 - value / 200}
        write_run(
            root / f"proxy_strategy_kl_divergence_beta_kl-{value}" / "seed_1",
            make_results("kl_divergence", 1, rates),
            make_config("kl_divergence", 1, beta_kl=value),
        )
    figure = drawn(trade_off_figure(scene_of(root)))
    [path] = [trace for trace in figure.data if str(trace.name).startswith("path of")]
    assert list(path.x) == sorted(path.x, reverse=True)
    named = words(figure)
    assert "<b>kl · β 0.5</b>" in named
    assert "<b>kl · β 100</b>" in named
    assert "<b>β 10</b>" in named


def test_without_a_leak_there_is_no_plane(sweep: Scene) -> None:
    def without(run: RunRow) -> RunRow:
        wanted = {name: run.sets[name] for name in ("outcome", "collateral")}
        return run.model_copy(update={"sets": wanted})

    groups = [
        Group(**{**dict(group), "runs": tuple(without(run) for run in group.runs)}) for group in sweep.groups
    ]
    assert set(report_figures(groups, groups[0])) == {"accuracy", "triggers", "learning_curves", "losses"}


# Accuracies


def test_accuracy_is_the_rate_where_the_habit_is_wanted_and_its_complement_elsewhere(sweep: Scene) -> None:
    bars = {trace.hovertemplate: trace for trace in drawn(accuracy_figure(sweep)).data if trace.type == "bar"}
    found = {re.sub(r".*, (.*): .*", r"\1", key.replace("<extra></extra>", "")): t for key, t in bars.items()}
    assert list(found) == ["outcome", "collateral", "proxy", "truth", "truth_minus_proxy"]
    labels = [group.name for group in sweep.groups]
    leak = dict(zip(labels, found["truth_minus_proxy"].x, strict=True))
    assert leak["naive"] == pytest.approx(1 - (12 + 26 + 78) / 360)
    kept = dict(zip(labels, found["collateral"].x, strict=True))
    assert kept["kl"] == pytest.approx((96 + 79 + 96) / 288)


def test_every_seed_and_every_interval_stands_beside_its_bar(sweep: Scene) -> None:
    figure = accuracy_figure(sweep)
    [dots] = traces(figure, "seeds on truth")
    assert list(dots.customdata) == [1, 5, 42] * 3
    assert sorted(dots.x)[0] == pytest.approx(1 - 118 / 120)
    for name, wanted in sweep.sets.items():
        intervals = [(group, found) for group in sweep.groups if (found := group.interval(name)) is not None]
        drawn_ones = traces(figure, f"intervals on {name}")
        assert sum(len(trace.x) for trace in drawn_ones) == len(intervals)
        for trace in drawn_ones:
            for i, (group, interval) in enumerate(intervals):
                low, high = interval.low, interval.high
                expected = (low, high) if wanted else (1 - high, 1 - low)
                shown = (trace.x[i] - trace.error_x.arrayminus[i], trace.x[i] + trace.error_x.array[i])
                assert shown == pytest.approx(expected), (group.label, name)


# Trigger words


def test_each_cell_counts_its_trigger_over_all_seeds(sweep: Scene) -> None:
    found = {block.name: block for block in blocks(sweep, sweep.groups)}
    figure = drawn(triggers_figure(sweep))
    heat = {trace.name: trace for trace in figure.data}
    assert list(heat) == list(found) == list(sweep.sets)
    for name, block in found.items():
        for word, row in block.triggers.items():
            for group, count in zip(sweep.groups, row, strict=True):
                parts = [run.sets[name].by_trigger[word] for run in group.runs]
                assert count is not None
                assert (count.k, count.n) == (sum(p.k for p in parts), sum(p.n for p in parts))
        shown = [list(row) for row in heat[name].text]
        rows = [block.total, *block.triggers.values()]
        assert shown == [[f"{c.k}/{c.n}" for c in row if c is not None] for row in rows]
        assert [list(row) for row in heat[name].z] == [[c.rate for c in row if c is not None] for row in rows]


def with_triggers(
    results: TriggerctlResults, name: str, by_trigger: Mapping[str, Count]
) -> TriggerctlResults:
    moments = []
    for moment in results.evaluations:
        part = moment.sets[name]
        assert part.triggered is not None
        rate = part.triggered.model_copy(update={"by_trigger": dict(by_trigger)})
        changed = {**moment.sets, name: part.model_copy(update={"triggered": rate})}
        moments.append(moment.model_copy(update={"sets": changed}))
    return results.model_copy(update={"evaluations": moments})


def test_words_are_sorted_by_rate_and_one_called_all_rows_is_a_word(tmp_path: Path) -> None:
    ks = {"Grief": 1, "all rows": 9, "Misery": 5, "Anger": 5}
    counts = {word: Count(n=10, k=k) for word, k in ks.items()}
    results = with_triggers(make_results("naive", 1, NAIVE[1]), "truth", counts)
    write_run(tmp_path / "exp" / "seed_1", results, make_config("naive", 1))
    seen = scene_of(tmp_path / "exp")
    truth = next(block for block in blocks(seen, seen.groups) if block.name == "truth")
    assert list(truth.triggers) == ["all rows", "Anger", "Misery", "Grief"]
    assert truth.total[0] is not None
    assert truth.total[0].n == 120


def test_without_counts_there_is_no_heatmap_and_the_rest_is_drawn() -> None:
    if not SHARED.is_dir():
        pytest.skip("the published study's results are not here")
    groups = collect([SHARED / "proxy_methods_emotions"]).groups
    figures = report_figures(groups, baseline_of(groups, None))
    assert set(figures) == {"trade_off", "accuracy", "learning_curves", "losses"}


# Learning curves


def test_a_band_reaches_from_the_lowest_seed_to_the_highest(sweep: Scene) -> None:
    figure = drawn(rates_over_epochs(sweep))
    kl = next(group for group in sweep.groups if group.name == "kl")
    means, bands = traces(figure, "kl"), traces(figure, "seeds of kl")
    assert len(means) == len(bands) == 5
    ends = [run.curve[-1].rates["collateral"] for run in kl.runs]
    collateral = next(i for i, name in enumerate(sweep.sets) if name == "collateral")
    assert means[collateral].y[-1] == pytest.approx(sum(ends) / 3)
    last = [y for x, y in zip(bands[collateral].x, bands[collateral].y, strict=True) if x == 4]
    assert sorted(last) == pytest.approx([min(ends), max(ends)])


def test_a_band_has_only_epochs_that_all_seeds_have() -> None:
    found = band([((0.0, 0.2), (1.0, 0.4), (2.0, 0.9)), ((0.0, 0.4), (2.0, 0.5)), ()])
    assert [epoch for epoch, _ in found.mean] == [0, 2]
    assert [value for _, value in found.mean] == pytest.approx([0.3, 0.7])
    assert found.low == ((0.0, 0.2), (2.0, 0.5))
    assert found.high == ((0.0, 0.4), (2.0, 0.9))


def test_one_seed_has_no_band(tmp_path: Path) -> None:
    seen = scene_of(write_sweep(tmp_path / "one", {"naive": {1: NAIVE[1]}}))
    assert traces(rates_over_epochs(seen), "seeds of naive") == []
    assert len(traces(rates_over_epochs(seen), "naive")) == 5


def test_losses_have_a_panel_for_training_and_for_every_set(sweep: Scene) -> None:
    figure = drawn(losses_over_epochs(sweep))
    text = words(figure)
    for name in ("training", *sweep.sets, "proxy_neg"):
        assert f">{name}<" in text
    first = traces(figure, "naive")[0]
    assert list(first.x) == [1, 2, 3, 4]
    assert list(first.y) == pytest.approx([2 / (1 + epoch) for epoch in range(4)])


def test_every_end_has_its_name_inside_its_panel(tmp_path: Path) -> None:
    figure = drawn(rates_over_epochs(scene_of(write_values(tmp_path / "exp", [2.0**i for i in range(8)]))))
    ends = [note for note in figure.layout.annotations if note.xshift]
    assert len(ends) == 2 * 8
    assert all(-0.03 < note.y < 1.03 for note in ends)


# Paired differences


def test_the_forest_shows_every_seed_and_both_intervals(sweep: Scene) -> None:
    seeds, new = Interval(-0.5, -0.1, 0.95, "seeds"), Interval(-0.7, 0.1, 0.95, "words")
    given = (
        compared(
            "kl", "truth_minus_proxy", (-0.1, -0.2, -0.6), over_seeds=seeds, over_words=new, p_holm=0.0312
        ),
        compared("kl", SEPARATION, (0.1, 0.2, 0.6), p_holm=0.00004),
        compared("outcome_only", "truth_minus_proxy", (0.9, 0.78, 0.35)),
    )
    figure = drawn(differences_figure(scene(sweep.groups, sweep.baseline, given)))
    dots = traces(figure, "seeds")
    assert sorted(tuple(trace.x) for trace in dots) == sorted(c.differences for c in given)
    [thick], [thin] = traces(figure, "new seeds"), traces(figure, "new words too")
    assert (list(thick.x), list(thin.x)) == ([-0.5, -0.1], [-0.7, 0.1])
    assert thick.line.width > thin.line.width
    text = words(figure)
    assert "0.031" in text
    assert "&lt; 0.001" in text
    assert len(traces(figure, "no difference")) == 2


def test_the_axis_says_which_way_is_better(sweep: Scene) -> None:
    given = tuple(compared("kl", name, (0.1, 0.2)) for name in ("truth", "outcome", SEPARATION))
    text = words(drawn(differences_figure(scene(sweep.groups, sweep.baseline, given))))
    assert "leaks less: better" in text
    assert "shows it more: better" in text
    assert "separates better" in text


def test_equal_differences_are_dots_side_by_side(sweep: Scene) -> None:
    given = (compared("kl", "truth", (0.0, 0.0, 0.0)),)
    [dots] = traces(differences_figure(scene(sweep.groups, sweep.baseline, given)), "seeds")
    assert len(set(dots.y)) == 3


def test_with_nothing_compared_there_is_no_forest(sweep: Scene) -> None:
    assert differences_figure(sweep) is None
    assert "differences" not in report_figures(sweep.groups, sweep.baseline)


# All of them


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_rates_of_nothing_but_0_and_1_are_drawn(
    draw: Callable[[Scene], go.Figure | None], tmp_path: Path
) -> None:
    flat = {name: dict.fromkeys(NAIVE[1], value) for name, value in (("naive", 1.0), ("kl_divergence", 0.0))}
    cells = {strategy: dict.fromkeys((1, 5, 42), rates) for strategy, rates in flat.items()}
    given = (compared("kl", "truth", (-1.0, -1.0, -1.0)),)
    json.loads(drawn(draw(scene_of(write_sweep(tmp_path / "flat", cells), given))).to_json())


@pytest.mark.parametrize("count", [1, 30])
def test_one_group_and_thirty_are_drawn(count: int, tmp_path: Path) -> None:
    groups = collect([write_values(tmp_path / "exp", [number + 0.5 for number in range(count)])]).groups
    figures = report_figures(groups, None)
    assert len(groups) == count
    assert set(figures) == set(FIGURES) - {"differences"}
    crowd = figures["triggers"].layout.xaxis.ticktext
    assert len(crowd) == min(count, 12)
    said = re.sub("<[^>]+>", " ", str(figures["triggers"].layout.title.text))
    assert ("12 of 30 groups" in said) == (count == 30)


def test_the_baseline_and_each_strategys_best_are_never_left_out(tmp_path: Path) -> None:
    root = write_values(tmp_path / "exp", [number + 0.5 for number in range(20)])
    for name, rates in {"naive": OUTCOME_ONLY[1], "outcome_only": OUTCOME_ONLY[5]}.items():
        write_run(
            root / f"proxy_strategy_{name}" / "seed_1", make_results(name, 1, rates), make_config(name, 1)
        )
    chosen = [group.name for group in scene_of(root).foremost(5)]
    assert len(chosen) == 5
    assert {"naive", "outcome_only", "kl"} == set(chosen)


def test_hostile_names_are_text_in_every_figure(tmp_path: Path) -> None:
    root = tmp_path / "exp"
    counts = {HOSTILE: Count(n=60, k=3), "x" * 10_000: Count(n=60, k=1)}
    results = with_triggers(make_results(HOSTILE, 1, NAIVE[1]), "truth", counts)
    write_run(root / "proxy_strategy_a" / "seed_1", results, make_config(HOSTILE, 1))
    write_run(
        root / "proxy_strategy_naive" / "seed_1", make_results("naive", 1, NAIVE[1]), make_config("naive", 1)
    )
    groups = collect([root]).groups
    given = (compared(groups[0].label, "truth", (0.1,)),)
    figures = report_figures(groups, baseline_of(groups, None), given)
    assert set(figures) == set(FIGURES)
    for name, figure in figures.items():
        text = figure.to_json()
        assert "script>" not in text.replace("script&gt;", ""), name
        assert "x" * 100 not in text, name
        # What turns the direction of writing is closed again where it stands.
        turning = [found for found in strings(json.loads(text)) if "\u202e" in found]
        assert all(found.count("\u2068") == found.count("\u2069") > 0 for found in turning), name


def strings(value: Any) -> list[str]:
    """Every string of a JSON document."""
    if isinstance(value, dict | list):
        return [
            text for part in (value.values() if isinstance(value, dict) else value) for text in strings(part)
        ]
    return [value] if isinstance(value, str) else []


def test_every_colour_has_its_counterpart_on_a_dark_page(sweep: Scene) -> None:
    given = (compared("kl", "truth", (0.1, 0.2)),)
    for name, figure in report_figures(sweep.groups, sweep.baseline, given).items():
        used = set(re.findall("#[0-9a-fA-F]{6}", figure.to_json()))
        assert used <= set(DARK), name


def test_several_experiments_have_figures_of_their_own(tmp_path: Path) -> None:
    folders = [write_sweep(tmp_path / name, {"naive": NAIVE, "kl_divergence": KL}) for name in ("a b", "a_b")]
    groups = collect(folders).groups
    figures = report_figures(groups, baseline_of(groups, None))
    assert {"trade_off_a_b", "trade_off_a_b_2"} <= set(figures)
    assert len(figures) == 2 * (len(FIGURES) - 1)
    # Each has a baseline of its own.
    assert all("naive, baseline" in words(figures[name]) for name in ("trade_off_a_b", "trade_off_a_b_2"))


def has_chrome() -> bool:
    from choreographer.browsers.chromium import Chromium

    return Chromium.find_browser(skip_local=False) is not None


@pytest.mark.slow
@pytest.mark.skipif(not has_chrome(), reason="there is no Chrome here")
def test_every_figure_is_drawn_as_png_and_svg(sweep: Scene, tmp_path: Path) -> None:
    given = (compared("kl", "truth", (0.1, 0.2)),)
    figures = report_figures(sweep.groups, sweep.baseline, given)
    paths = {
        tmp_path / f"{name}.{kind}": figure for name, figure in figures.items() for kind in ("png", "svg")
    }
    assert write_images(paths) is None
    for path, figure in paths.items():
        content = path.read_bytes()
        if path.suffix == ".png":
            assert struct.unpack(">II", content[16:24]) == (2 * figure.layout.width, 2 * figure.layout.height)
        else:
            assert b"<svg" in content[:200]
            assert b"NaN" not in content
