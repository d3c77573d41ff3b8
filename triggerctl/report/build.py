"""`triggerctl report`: from experiment folders to everything a report consists of, on disk."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from triggerctl.errors import InputError
from triggerctl.experiment.atomic import make_folder, write_text_atomic
from triggerctl.report import comparisons
from triggerctl.report.checks import check
from triggerctl.report.collect import Collection, collect
from triggerctl.report.environment import read_environment
from triggerctl.report.figures import drawn_in_full, report_figures
from triggerctl.report.findings import Finding, by_severity
from triggerctl.report.flips import Pair, read_flips
from triggerctl.report.formats import DEFAULT_FORMATS, FORMATS
from triggerctl.report.groups import named_group
from triggerctl.report.headline import baseline_of, headline
from triggerctl.report.images import write_images
from triggerctl.report.markdown import to_markdown
from triggerctl.report.page import render_page
from triggerctl.report.rows import Group, measure_all
from triggerctl.report.samples import read_samples
from triggerctl.report.spreadsheet import to_csv
from triggerctl.report.summary import ReportSummary, summarise, to_json

IMAGES = ("png", "svg")
"""The formats that are a file a figure; a text shows the first of them that there is."""

_ONE_FIGURE_EACH = (
    "so many experiments have one figure each, or none; a report on a few of them draws all figures"
)


@dataclass(frozen=True, slots=True)
class ReportResult:
    """What was written, the page first where there is one. `summary` holds headline, warnings, groups and
    runs as summary.json has them; `groups` the same as objects; `notes`: what the user should know of the
    report itself, such as that images could not be drawn, a line each."""

    paths: tuple[Path, ...]
    summary: ReportSummary
    groups: tuple[Group, ...]
    notes: tuple[str, ...]

    @property
    def headline(self) -> str:
        return self.summary.headline

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return self.summary.warnings


def build_report(
    folders: Sequence[Path],
    output: Path,
    *,
    formats: frozenset[str] = frozenset(DEFAULT_FORMATS),
    baseline: str | None = None,
    compare: tuple[str, str] | None = None,
) -> ReportResult:
    """Write the report on the experiments in `folders` into `output`, replacing an older one.

    `baseline`: what strategies are compared with, by name, alias or label; None: naive where it was run;
    `compare`: the two groups, named alike, whose verdicts the page sets side by side.
    Raises InputError for an unknown format, baseline or group, and where no run has finished.
    """
    unknown = sorted(formats.difference(FORMATS))
    if unknown:
        raise InputError(
            f"there is no report format {unknown[0]!r}", mend="choose among " + ", ".join(FORMATS)
        )
    collection = collect(folders)
    groups = collection.groups
    if not groups:
        raise _nothing_finished(folders, collection)
    compared = baseline_of(groups, baseline)
    pair = _pair(groups, *compare) if compare is not None else None
    groups = _baseline_first(groups, compared)
    measure_all(groups)
    differences = comparisons.compare(groups, compared)
    sentence = headline(groups, baseline, differences)
    warnings = by_severity([*collection.findings, *check(groups)])
    summary = summarise(
        groups, headline=sentence, warnings=warnings, baseline=compared, comparisons=differences
    )
    figures = report_figures(groups, compared, differences)

    make_folder(output)
    drawn, undrawn = _draw(figures, output / "figures", formats)
    title = _title(groups)
    texts: dict[str, str] = {}
    if "html" in formats:
        texts["index.html"] = render_page(
            groups,
            title=title,
            headline=sentence,
            warnings=warnings,
            figures=figures,
            samples=read_samples(groups),
            environment=read_environment(collection.runs),
            comparisons=differences,
            few_seeds=summary.few_seeds,
            flips=read_flips(groups, pair),
            compared=pair,
        )
    if "md" in formats:
        shown = _shown(drawn, output, formats)
        texts["report.md"] = to_markdown(groups, summary, title=title, images=shown)
    if "csv" in formats:
        texts["summary.csv"] = to_csv(groups)
    if "json" in formats:
        texts["summary.json"] = to_json(summary)
    for name, text in texts.items():
        write_text_atomic(output / name, text)
    notes = tuple(note for note in (undrawn, None if drawn_in_full(groups) else _ONE_FIGURE_EACH) if note)
    return ReportResult((*(output / name for name in texts), *drawn), summary, groups, notes)


def _title(groups: Sequence[Group]) -> str:
    names = list(dict.fromkeys(group.experiment for group in groups))
    return "triggerctl report: " + (", ".join(names) if len(names) <= 3 else f"{len(names)} experiments")


def _draw(
    figures: Mapping[str, go.Figure], folder: Path, formats: frozenset[str]
) -> tuple[tuple[Path, ...], str | None]:
    """The images that were drawn, and why none were."""
    images = {
        folder / f"{name}.{kind}": figure
        for kind in IMAGES
        if kind in formats
        for name, figure in figures.items()
    }
    undrawn = write_images(images)
    return (() if undrawn else tuple(images)), undrawn


def _shown(drawn: Sequence[Path], output: Path, formats: frozenset[str]) -> list[str]:
    """Each figure's image once, as the Markdown in `output` names it."""
    [kind, *_] = [kind for kind in IMAGES if kind in formats] or IMAGES
    return [path.relative_to(output).as_posix() for path in drawn if path.suffix == f".{kind}"]


def _pair(groups: Sequence[Group], first: str, second: str) -> Pair:
    one, other = (named_group(groups, name, where="--compare") for name in (first, second))
    return one.label, other.label


def _baseline_first(groups: Sequence[Group], baseline: Group | None) -> tuple[Group, ...]:
    """Within each experiment the baseline's strategy stands first; the order is kept else."""
    if baseline is None:
        return tuple(groups)
    experiments = list(dict.fromkeys(group.experiment for group in groups))
    return tuple(
        sorted(groups, key=lambda g: (experiments.index(g.experiment), g.strategy != baseline.strategy))
    )


def _nothing_finished(folders: Sequence[Path], collection: Collection) -> InputError:
    names = ", ".join(map(str, folders))
    first = shlex.quote(str(folders[0])) if folders else "EXPERIMENT"  # as a path it is found from here
    return InputError(
        f"there is nothing to report on: no run of {names} has finished results that can be read",
        why=" ".join(finding.text for finding in collection.findings) or None,
        mend=f"run it first: `triggerctl run {first}`; `triggerctl status {first}` says where it stands",
    )
