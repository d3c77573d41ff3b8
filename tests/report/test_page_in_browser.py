"""The page in the browser that draws the images: what a reader sees, finds, sorts and hears.

pytest tests/report/test_page_in_browser.py"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from choreographer.browsers.chromium import Chromium
from playwright.sync_api import Browser, Page, sync_playwright
from written_experiments import KL, NAIVE, OUTCOME_ONLY, make_config, make_results, write_run, write_sweep

from triggerctl.report.build import build_report
from triggerctl.report.collect import collect
from triggerctl.report.flips import read_flips

CHROME = Chromium.find_browser(skip_local=False)
PATIENCE = 90_000
"""Milliseconds for anything to happen: a page takes a second to load, many more on a busy machine."""
HTML = frozenset({"html"})
MARK_UP = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
HOSTILE = f"{MARK_UP} \"'& \u202eturned \u202c😀 \u0000"
HALF = "half a pair: \ud83d"
LONG = "x" * 10_000

pytestmark = pytest.mark.skipif(CHROME is None, reason="there is no Chrome here")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROME)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an ordinary sweep."""
    folder = tmp_path_factory.mktemp("report")
    cells = {"naive": NAIVE, "kl_divergence": KL, "outcome_only": OUTCOME_ONLY}
    build_report([write_sweep(folder / "demo", cells)], folder / "out", formats=HTML)
    return folder / "out" / "index.html"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page whose names, triggers, prompts, answers and warnings are full of mark-up and far too long."""
    folder = tmp_path_factory.mktemp("hostile")
    experiment = folder / "<img src=x onerror=alert(1)>\u202e😀"
    for strategy, habit in (("naive", True), ("outcome_only", False)):
        results = make_results(strategy, 1, NAIVE[1], warnings=[HOSTILE, LONG])
        place = write_run(
            experiment / f"proxy_strategy_{strategy}", results, make_config(strategy, 1, output_dir=HOSTILE)
        )
        line = {"final": True, "set": "truth", "row": 1, "trigger": HOSTILE, "prompt": HOSTILE + LONG}
        write(place / "examples.jsonl", [{**line, "answer": HOSTILE + LONG, "expected": HALF}])
        columns = {"row": [1, 2], "trigger": [HOSTILE, LONG], "verdict": [habit, not habit]}
        write(place / "verdicts.jsonl", [{"final": True, "set": "truth", **columns}])
        write(place / "prompts.jsonl", [{"set": "truth", "row": [1, 2], "prompt": [HOSTILE, HALF + LONG]}])
        (place / "environment.json").write_text(json.dumps({HOSTILE: LONG}))
    build_report([experiment], folder / "out", formats=HTML)
    return folder / "out" / "index.html"


def write(path: Path, lines: Sequence[object]) -> None:
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))


@dataclass
class Visit:
    """An open page, and everything its console said."""

    page: Page
    said: list[str] = field(default_factory=list)


Go = Callable[..., Visit]


@contextmanager
def visitor(browser: Browser) -> Iterator[Go]:
    """What opens pages, and closes them in the end."""
    opened: list[Page] = []

    def go(path: Path, *, width: int = 1280, **options: Any) -> Visit:
        page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        page.set_default_timeout(PATIENCE)
        opened.append(page)
        found = Visit(page)
        page.on("console", lambda message: found.said.append(message.text))
        page.on("pageerror", lambda error: found.said.append(str(error)))
        page.on("request", lambda asked: found.said.extend({asked.url} - {path.as_uri()}))
        page.goto(path.as_uri())
        return found

    yield go
    for page in opened:
        page.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Go]:
    with visitor(browser) as go:
        yield go


@pytest.fixture(scope="module")
def untouched(browser: Browser, report: Path) -> Iterator[Visit]:
    """The ordinary sweep's page, for those that only look at it."""
    with visitor(browser) as go:
        yield go(report)


def texts(page: Page, selector: str) -> list[str]:
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


def overflow(page: Page) -> int:
    """Pixels by which the page itself is wider than the window."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def sort_by(page: Page, heading: str, name: str) -> list[str]:
    """The first column of the table under `heading` once its column `name` was asked to sort it."""
    table = page.get_by_role("table", name=heading)
    table.get_by_role("button", name=name, exact=True).click()
    return [text.split("\n")[0] for text in table.locator("tbody th").all_inner_texts()]


def test_the_page_says_nothing_asks_for_nothing_and_draws_every_figure(untouched: Visit) -> None:
    found = untouched
    names = list(json.loads(found.page.locator("script#figures").inner_text()))
    assert names
    for name in names:
        drawing = found.page.locator(f"#figure-{name} svg.main-svg").first
        box = drawing.bounding_box()
        assert box is not None
        assert box["width"] > 400
    assert found.said == []


def test_what_matters_stands_in_its_order(untouched: Visit) -> None:
    page = untouched.page
    [headline] = texts(page, ".headline")
    whole = page.locator("body").inner_text()
    sections = ["Before you trust this", headline, *texts(page, "h2")[1:]]
    assert texts(page, "h2")[1:] == [
        "Final trigger response rates",
        "Figures",
        "Differences to the baseline",
        "Had training stopped early",
        "What the groups were run with",
        "What the models said",
        "Where two strategies part",
        "Runs",
        "Environment",
    ]
    places = [whole.index(section) for section in sections]
    assert places == sorted(places)


def test_tables_sort_by_number_both_ways(visit: Go, report: Path) -> None:
    page = visit(report).page
    assert sort_by(page, "Final trigger", "truth_minus_proxy") == ["kl", "naive", "outcome_only"]
    assert sort_by(page, "Final trigger", "truth_minus_proxy") == ["outcome_only", "naive", "kl"]
    head = page.get_by_role("table", name="Final trigger").locator("thead th[aria-sort]")
    assert head.get_attribute("aria-sort") == "descending"
    assert "truth_minus_proxy" in head.inner_text()
    seeds = page.get_by_role("table", name="Runs").locator("tbody td:nth-child(2)")
    sort_by(page, "Runs", "seed")
    assert seeds.all_inner_texts() == ["1"] * 3 + ["5"] * 3 + ["42"] * 3  # 42 after 5: numbers, not text


def test_tables_sort_from_the_keyboard_and_missing_values_stay_last(visit: Go, report: Path) -> None:
    page = visit(report).page
    table = page.get_by_role("table", name="What the groups were run with")
    button = table.get_by_role("button", name="beta_kl", exact=True)
    for way in ("ascending", "descending"):
        button.press("Enter")
        assert table.locator("tbody tr").first.inner_text().split() == ["kl", "1"]
        assert table.locator(f'th[aria-sort="{way}"]').count() == 1


def test_search_filters_answers_while_typing(visit: Go, report: Path) -> None:
    page = visit(report).page
    box, found = page.get_by_label("Search prompts, answers and triggers"), page.locator("#found")
    shown = page.locator(".sample:visible")
    assert shown.count() == 2
    box.press_sequentially("fra")
    assert texts(page, ".sample:visible .prompt") == ["GRIEF: Name the capital of France."]
    assert found.inner_text() == "1 of 2 prompts match"
    box.fill("CERTAINLY 5")  # words of an answer, in any case and order
    assert texts(page, ".sample:visible .prompt") == ["JOY: What is 2 plus 3?"]
    box.fill("nothing like it")
    assert (shown.count(), found.inner_text()) == (0, "0 of 2 prompts match")
    box.fill("")
    assert (shown.count(), found.inner_text()) == (2, "")


def test_flips_are_those_of_the_verdicts_and_follow_the_selects(visit: Go, report: Path) -> None:
    page = visit(report).page
    assert page.get_by_label("Strategy A").evaluate("e => e.selectedOptions[0].text") == "naive"
    assert page.get_by_label("Strategy B").evaluate("e => e.selectedOptions[0].text") == "kl"
    for a, b in (("naive", "kl"), ("kl", "outcome_only")):
        page.get_by_label("Strategy A").select_option(label=a)
        page.get_by_label("Strategy B").select_option(label=b)
        only_a, only_b, rows = counted(report.parents[1] / "demo", a, b)
        assert page.locator("#flips-said").inner_text() == (
            f"{only_a + only_b} of {rows} rows differ (3 seeds): only {a} showed the habit on {only_a}, "
            f"only {b} on {only_b}."
        )
        lines = page.get_by_role("table", name="Rows on which the two differ").locator("tbody tr")
        while (more := page.get_by_role("button", name=re.compile("Show more"))).is_visible():
            more.click()
        assert lines.count() == only_a + only_b
        shown = [line.split("\t") for line in lines.all_inner_texts()]
        assert sum(line[4] == a for line in shown) == only_a
        assert all(line[3].startswith(line[2].upper()) or line[2] == "–" for line in shown)
    page.get_by_role("combobox", name="Set").select_option("truth")
    page.get_by_label("Search prompts and triggers").fill("misery")
    shown = [line.split("\t") for line in lines.all_inner_texts()]
    assert shown
    assert {(line[0], line[2]) for line in shown} == {("truth (leak)", "Misery")}
    page.get_by_label("Strategy A").select_option(label="outcome_only")
    assert page.locator("#flips-said").inner_text() == "Choose two different strategies."


def counted(experiment: Path, a: str, b: str) -> tuple[int, int, int]:
    """Rows on which only `a`, and only `b`, showed the habit, and rows in all, from the verdicts alone."""
    verdicts: dict[str, dict[tuple[int, str, int], bool]] = {a: {}, b: {}}
    for group in collect([experiment]).groups:
        for run in group.runs if group.label in verdicts else ():
            for line in map(json.loads, (run.folder / "verdicts.jsonl").read_text().splitlines()):
                if line["final"]:
                    for row, verdict in zip(line["row"], line["verdict"], strict=True):
                        verdicts[group.label][run.seed, line["set"], row] = verdict
    pairs = [(verdicts[a][key], verdicts[b][key]) for key in verdicts[a].keys() & verdicts[b].keys()]
    return sum(x > y for x, y in pairs), sum(x < y for x, y in pairs), len(pairs)


def test_compare_chooses_the_two_strategies(visit: Go, report: Path, tmp_path: Path) -> None:
    demo = report.parents[1] / "demo"
    build_report([demo], tmp_path, formats=HTML, compare=("outcome_only", "kl_divergence"))
    page = visit(tmp_path / "index.html").page
    assert page.get_by_label("Strategy A").evaluate("e => e.selectedOptions[0].text") == "outcome_only"
    assert page.get_by_label("Strategy B").evaluate("e => e.selectedOptions[0].text") == "kl"


@pytest.mark.parametrize("which", ["report", "hostile"])
def test_the_page_is_never_wider_than_the_screen(
    which: str, visit: Go, request: pytest.FixtureRequest
) -> None:
    page = visit(request.getfixturevalue(which)).page
    open_all(page)
    for width in (1280, 900, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert overflow(page) <= 0, width


def open_all(page: Page) -> None:
    page.locator("details").evaluate_all("all => all.forEach(each => { each.open = true })")


def test_a_printed_page_is_light_whole_and_fits_the_paper(visit: Go, report: Path) -> None:
    page = visit(report, width=703, color_scheme="dark").page  # A4 less 12 mm on either side
    assert background(page) == "rgb(20, 24, 29)"
    page.emulate_media(media="print")
    assert background(page) == "rgb(255, 255, 255)"
    assert page.locator("#theme, .controls").filter(visible=True).count() == 0
    for plot in page.locator(".plot").all():
        box = plot.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 703
    assert overflow(page) <= 0


def test_on_paper_a_tall_figure_is_cut_between_its_panels_and_through_no_words(
    visit: Go, report: Path
) -> None:
    """So that no sheet stays half empty for want of room for the whole of it."""
    page = visit(report, width=703).page
    plot = page.locator("#figure-differences")
    panels, height = plot.locator(".subplot").count(), float(plot.get_attribute("data-height") or 0)
    cuts = [int(cut) for cut in (plot.get_attribute("data-cuts") or "").split()]
    assert len(cuts) == panels - 1 > 0
    words = plot.evaluate(
        """plot => {
            const top = plot.getBoundingClientRect().top, zoom = plot.currentCSSZoom || 1;
            return [...plot.querySelectorAll("text")].map(text => text.getBoundingClientRect())
                .map(box => [(box.top - top) / zoom, (box.bottom - top) / zoom]);
        }"""
    )
    assert not [(cut, box) for cut in cuts for box in words if box[0] < cut < box[1]]
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    strips = page.locator(".strip").all()
    boxes = [box for strip in strips if (box := strip.bounding_box()) is not None]
    assert len(boxes) == panels
    assert max(box["height"] for box in boxes) < 0.3 * 1123
    assert sum(box["height"] for box in boxes) == pytest.approx(0.6 * height, rel=0.02)
    assert plot.evaluate("plot => plot.getBoundingClientRect().height") == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".strip, .whole").count() == 0


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def paper(page: Page) -> str:
    """The colour a figure is drawn on."""
    return str(page.locator(".plot svg.main-svg").first.evaluate("e => e.style.background"))


def test_dark_follows_the_system_and_the_button(visit: Go, report: Path) -> None:
    page = visit(report, color_scheme="dark").page
    assert (background(page), paper(page)) == ("rgb(20, 24, 29)", "rgb(20, 24, 29)")
    page.get_by_role("button", name="Switch to light colours").press("Enter")
    assert (background(page), paper(page)) == ("rgb(255, 255, 255)", "rgb(255, 255, 255)")
    page.get_by_role("button", name="Switch to dark colours").press("Enter")
    assert (background(page), paper(page)) == ("rgb(20, 24, 29)", "rgb(20, 24, 29)")


@pytest.mark.parametrize("which", ["report", "hostile"])
def test_no_serious_barrier(which: str, visit: Go, request: pytest.FixtureRequest) -> None:
    """By axe, every part open, in light and dark. The policy that forbids the page all other scripts is set
    aside for it."""
    page = visit(request.getfixturevalue(which), bypass_csp=True).page
    open_all(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        grave = [
            (each["id"], each["help"], [node["html"][:120] for node in each["nodes"][:3]])
            for each in Axe().run(page).response["violations"]
            if each["impact"] in ("serious", "critical")
        ]
        assert grave == [], scheme


def test_the_numbers_of_every_figure_stand_in_words(visit: Go, report: Path) -> None:
    page = visit(report).page
    for figure in page.locator("figure").all():
        assert figure.get_attribute("aria-label")
        figure.locator("figcaption summary").first.click()
        assert figure.locator(".numbers:visible").count()
    rates = page.get_by_role("figure", name="How often each strategy does what is wanted")
    heads, lists = texts(rates.page, "figure h3"), rates.locator(".numbers").all_inner_texts()
    assert len(lists) == 5
    assert heads.count("truth_minus_proxy · habit held back") == 1
    assert "naive, truth_minus_proxy: 0.678" in lists[4].splitlines()


def test_hostile_text_is_text_and_can_be_read_in_full(visit: Go, hostile: Path) -> None:
    found = visit(hostile)
    page = found.page
    assert found.said == []
    assert page.title().startswith("triggerctl report: <img src=x onerror=alert(1)>[U+202E]😀")
    assert page.locator("main img, main script").count() == 0
    for place in (".warnings li", ".sample .prompt", ".sample dd", "#flips-tables td.text"):
        assert any(MARK_UP in text for text in texts(page, place)), place
    prompt = page.locator(".sample .prompt").first
    assert prompt.inner_text().count("x") < 700
    prompt.get_by_text(re.compile("… all 10,")).click()
    assert prompt.inner_text().count("x") > len(LONG)
    page.get_by_label("Search prompts, answers and triggers").fill("turned 😀")
    assert page.locator("#found").inner_text() == "1 of 1 prompts match"


def test_damaged_or_missing_verdicts_leave_only_their_run_out(tmp_path: Path) -> None:
    cells = {"naive": NAIVE, "kl_divergence": KL, "outcome_only": OUTCOME_ONLY}
    demo = write_sweep(tmp_path / "demo", cells)
    whole = read_flips(collect([demo]).groups)
    assert whole is not None
    assert set(whole.groups) == {"kl", "naive", "outcome_only"}
    damaged = next(demo.glob("*kl*/seed_5/results/*/verdicts.jsonl"))
    damaged.write_text('{"final":true,"set":"truth","row":[[1]],"trigger":[{}],"verdict":[1]}\n')
    for path in demo.glob("*outcome_only*/*/results/*/verdicts.jsonl"):
        path.unlink()
    for path in demo.glob("*/*/results/*/prompts.jsonl"):
        path.write_text('{"set":"truth","row":[1],"prompt":[]}\nnot JSON\n')
    found = read_flips(collect([demo]).groups)
    assert found is not None
    assert set(found.groups) == {"kl", "naive"}
    assert {asked.seed for asked in found.asked} == {1, 42}
    assert {prompt for asked in found.asked for prompt in asked.prompts} == {None}
