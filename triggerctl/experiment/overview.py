"""Where runs stand, for those who watch: one view of each run folder, quick to read for thousands of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic_core import from_json

from triggerctl import disk
from triggerctl.errors import TriggerctlError
from triggerctl.experiment.atomic import disk_errors
from triggerctl.experiment.brief_results import BriefResults, read_brief
from triggerctl.experiment.layout import ExperimentFolder, RunListing, list_run, list_runs
from triggerctl.experiment.state import LOG_LINES, RunState, last_lines, parse_state, shown_status


@dataclass(frozen=True, slots=True)
class RunView:
    """One run folder as it stands.

    name:         its path from its experiment, whose own name `experiment` is where that was said.
    state:        a word of `ShownStatus`; whoever shows a run may put another in its place.
    epoch, step:  what is done; `epochs`, `steps`: what is planned. None where nobody said.
    phase:        the phase of training that the run was in last.
    loss, rates:  of the finished results, the mean training loss of the last epoch (nats) and the final
                  trigger response rates; of a run without, the last update's and the last evaluation's.
    error, log:   why it failed, or which results can't be read; and the last lines that it said.
    finished:     how many finished results lie here, repetitions not counted; `newest`: the name of the
                  newest, which tells its time.
    seconds:      since the run began, to its end or its last sign of life; `seconds_left`: as it estimates.
    """

    name: str
    folder: Path
    state: str
    strategy: str | None = None
    seed: int | None = None
    epoch: float | None = None
    epochs: float | None = None
    step: int | None = None
    steps: int | None = None
    phase: str | None = None
    loss: float | None = None
    rates: Mapping[str, float | None] = field(default_factory=dict)
    error: str | None = None
    log: tuple[str, ...] = ()
    finished: int = 0
    newest: str | None = None
    seconds: float | None = None
    seconds_left: float | None = None
    experiment: str = ""

    @property
    def full_name(self) -> str:
        """The run's name with its experiment's; a run that is the experiment itself has but one."""
        if self.name == self.experiment.rpartition("/")[2]:
            return self.experiment
        return f"{self.experiment}/{self.name}" if self.experiment else self.name


def view_experiment(folder: ExperimentFolder, name: str = "") -> list[RunView]:
    """Every run of an experiment, itself, its seeds and its cells; `name`: what the experiment is called."""
    depth = len(folder.path.parts)
    return [
        _view(listing, "/".join(listing.folder.path.parts[depth:]) or folder.name, name)
        for listing in list_runs(folder)
    ]


def view_run(run: ExperimentFolder, name: str) -> RunView:
    """One run folder; one that is not there yet is pending. What can't be read is said in the view, never
    raised."""
    try:
        listing = list_run(run)
    except TriggerctlError as error:
        return RunView(name, run.path, "failed", error=str(error))
    return _view(listing, name)


def time_left(views: Sequence[RunView]) -> float | None:
    """Seconds until the running runs and then the pending ones are through, as many at a time as run now;
    a pending run is taken to last as long as the others do. None where nothing runs or nobody knows."""
    running = [view for view in views if view.state == "running"]
    left = [view.seconds_left for view in running if view.seconds_left is not None]
    pending = sum(view.state == "pending" for view in views)
    if not left:
        return None
    if not pending:
        return max(left)
    whole = [
        view.seconds + (view.seconds_left or 0.0)
        for view in views
        if view.seconds is not None and (view.state == "done" or view.seconds_left is not None)
    ]
    if not whole:
        return None
    return max(*left, (sum(left) + pending * sum(whole) / len(whole)) / len(running))


def _view(listing: RunListing, name: str, experiment: str = "") -> RunView:
    run = listing.folder
    error: str | None = None
    state: RunState | None = None
    shown = "pending"
    try:
        if "state.json" in listing.files and (content := _content(f"{run.path}/state.json")) is not None:
            state = parse_state(content, run.state)
            shown = shown_status(run.path, state)
    except TriggerctlError as damaged:
        shown, error = "failed", str(damaged)
    results, unreadable = _results(listing, state)
    newest, brief = results[0] if results else (None, None)
    if shown in ("pending", "done"):
        # The study's folders have results and no state.
        if brief is not None:
            shown = "done"
        elif unreadable:
            shown = "failed"
        elif state is not None and state.results and not (run.path / "results" / state.results).exists():
            shown = "pending"  # who has thrown its results away wants it trained again
        error = unreadable[0] if unreadable else None
    of_results = brief if shown == "done" else None
    said = state or RunState()
    failed = shown in ("failed", "stale")
    strategy, seed = (said.strategy, said.seed) if said.strategy is not None else _named(run, brief, listing)
    told = said.epochs is not None or brief is None
    return RunView(
        name=name,
        folder=run.path,
        state=shown,
        strategy=strategy,
        seed=seed,
        epoch=said.epoch if told else None,
        epochs=said.epochs,
        step=said.step if told else None,
        steps=said.steps,
        phase=said.progress.phase if state is not None else None,
        loss=of_results.loss if of_results and of_results.loss is not None else said.progress.loss,
        rates=of_results.rates if of_results else said.progress.rates,
        error=error or (said.error if failed else None),
        log=tuple(last_lines(run.log, LOG_LINES)) if failed and "run.log" in listing.files else (),
        finished=1 if len(results) == 1 else len({each.key() for _, each in results}),
        newest=newest,
        seconds=_seconds(said, shown),
        seconds_left=said.progress.seconds_left if shown == "running" else None,
        experiment=experiment,
    )


def _content(file: str) -> bytes | None:
    """None where there is no such file."""
    try:
        return disk.read_bytes(file)
    except FileNotFoundError:
        return None
    except OSError:
        with disk_errors(Path(file), "read"):
            raise


def _results(listing: RunListing, state: RunState | None) -> tuple[list[tuple[str, BriefResults]], list[str]]:
    """The finished results, newest first, with their folders' names; and which could not be read, and why."""
    found, unreadable = [], []
    folder = str(listing.folder.path)
    for name in listing.results:
        # A run's last evaluation is its final one, and its state keeps what that gave.
        known = state.progress.rates if state is not None and state.results == name else None
        try:
            brief = read_brief(f"{folder}/results/{name}/results.json", rates=known or None)
        except TriggerctlError as error:
            unreadable.append(str(error))
            continue
        if brief is not None:
            found.append((name, brief))
    return found, unreadable


def _named(
    run: ExperimentFolder, brief: BriefResults | None, listing: RunListing
) -> tuple[str | None, int | None]:
    """Strategy and seed of a run without a state: of its results, else what its configuration asks for."""
    if brief is not None:
        return brief.strategy, brief.seed
    if "config.json" not in listing.files:
        return None, None
    try:
        # What a sweep writes is plain JSON that names both; it is read whole when the run begins.
        config = from_json(disk.read_bytes(run.config))
    except (OSError, ValueError):
        config = None
    if isinstance(config, dict):
        strategy, seed = config.get("proxy_strategy"), config.get("seed")
        if isinstance(strategy, str) and isinstance(seed, int):
            return strategy, seed
    from triggerctl.config.load import load_config

    try:
        asked = load_config(run.config).config
    except TriggerctlError:
        return None, None
    return asked.proxy_strategy, asked.seed


def _seconds(state: RunState, shown: str) -> float | None:
    if state.started is None:
        return None
    until = datetime.now(UTC) if shown == "running" else state.finished or state.heartbeat
    return max(0.0, (until - state.started).total_seconds()) if until is not None else None
