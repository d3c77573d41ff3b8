"""``triggerctl validate``: everything that can be known about a run before it trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triggerctl.cli.options import Device, Globals, Json, Seed, Settings, Strategy, as_typed, overrides
from triggerctl.errors import InputError

if TYPE_CHECKING:
    from triggerctl.config.load import LoadedConfig
    from triggerctl.config.overrides import Override
    from triggerctl.experiment.layout import ExperimentFolder


def command(
    ctx: typer.Context,
    experiments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EXPERIMENT…", help="Folders under the root, or paths; several with --config-only."
        ),
    ] = None,
    seed: Seed = None,
    strategy: Strategy = None,
    settings: Settings = None,
    preview: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Show N rows of each set as the model sees them.")
    ] = None,
    write_data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write every set as JSON lines and end; no model is needed."),
    ] = None,
    config_only: Annotated[
        bool, typer.Option("--config-only", help="Read the configs alone, nothing else.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of config.json and end.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> int:
    """Check a run before it trains: config, data, model, and what it will cost.

    Example
        $ triggerctl validate demo
        …
        strategy  naive: plain fine-tuning on outcome and proxy, shuffled together
                  L = CE(outcome ∪ proxy)
        …
        work      132 updates of 16 rows, 49,360 tokens trained on, …
        estimate  about 41 s, 145.8 MB of 22.0 GB memory, on cpu, float32

        $ triggerctl validate demo --preview 1 --set max_seq_length=64
    """
    globals_: Globals = ctx.obj
    if schema:
        _print_schema()
        return 0
    names = experiments or []
    if not names:
        raise InputError(
            "no experiment is named", where="triggerctl validate", mend="triggerctl validate my_exp"
        )
    changes = overrides(settings, seed=seed, strategy=strategy)
    if config_only:
        from triggerctl.cli.config_only import check_configs

        return check_configs(names, globals_, changes, as_json=as_json)
    name = _only(names)
    folder, loaded = _loaded(name, globals_, changes)
    if write_data is not None:
        _write_data(loaded, write_data.expanduser(), as_json=as_json)
        return 0
    is_done = _check(folder, loaded, device=device, preview=preview, as_json=as_json)
    if not as_json:
        from triggerctl import console

        run = globals_.suggest("run", name, *as_typed(settings, seed=seed, strategy=strategy))
        console.next_step(globals_.suggest("report", name) if is_done else run)
    return 0


def _print_schema() -> None:
    from triggerctl import console
    from triggerctl.config.schema import json_schema

    console.print_json(json_schema())


def _only(names: Sequence[str]) -> str:
    if len(names) > 1:
        raise InputError(
            "one experiment at a time is checked with its data and model",
            where="triggerctl validate " + " ".join(names),
            mend="name one, or add --config-only to read the configs of many",
        )
    return names[0]


def _loaded(
    name: str, globals_: Globals, changes: Sequence[Override]
) -> tuple[ExperimentFolder, LoadedConfig]:
    from triggerctl.config.load import load_config
    from triggerctl.experiment.find import experiments_root, find_experiment

    folder = find_experiment(name, experiments_root(globals_.root))
    return folder, load_config(folder.config, overrides=changes)


def _check(
    folder: ExperimentFolder, loaded: LoadedConfig, *, device: str, preview: int | None, as_json: bool
) -> bool:
    """Plan the run with its data and its model, and say what was found; returns whether it is finished
    already."""
    from triggerctl import console
    from triggerctl.cli.live import LiveRun, download_listener
    from triggerctl.cli.plan_view import plan_document, show_plan, show_preview
    from triggerctl.training.decision import Action
    from triggerctl.training.plan import plan_run

    with LiveRun(console.err) as live:
        plan = plan_run(folder, loaded, progress=download_listener(live))

        from triggerctl.training.describe import describe

        description = describe(plan, device=device)
        shown = description.preview(preview) if preview is not None else ()
    if as_json:
        console.print_json(plan_document(plan, description, shown))
        return plan.action is Action.SKIP
    show_plan(plan, description)
    if preview is not None:
        show_preview(shown)
    return plan.action is Action.SKIP


def _write_data(loaded: LoadedConfig, target: Path, *, as_json: bool) -> None:
    """Write the sets of a configuration. Needs its data, not its model."""
    from triggerctl import console
    from triggerctl.cli.live import LiveRun, download_listener
    from triggerctl.data.export import write_sets
    from triggerctl.data.extra import load_extra
    from triggerctl.data.source import load_rows
    from triggerctl.data.splits import build_splits

    config = loaded.config
    with LiveRun(console.err) as live:
        progress = download_listener(live)
        source = load_rows(config.dataset_url, folder=loaded.folder, progress=progress)
        extra = load_extra(config, folder=loaded.folder, progress=progress)
    splits = build_splits(source.rows, config, extra=extra)
    write_sets(splits, target)
    rows = {name: len(each.examples) for name, each in splits.sets.items()}
    if as_json:
        console.print_json(_written(target, rows, splits.proxy_triggers, splits.notes))
        return
    for text in (*loaded.warnings, *splits.notes):
        console.warn(text)
    for name, count in rows.items():
        console.say("wrote", f"{target / name}.jsonl  {count:,} rows")
    console.say("triggers", f"proxy: {', '.join(splits.proxy_triggers) or 'none'}")


def _written(
    target: Path, rows: dict[str, int], triggers: Sequence[str], notes: Sequence[str]
) -> dict[str, Any]:
    files = {name: {"path": str(target / f"{name}.jsonl"), "rows": count} for name, count in rows.items()}
    return {"files": files, "proxy_triggers": list(triggers), "warnings": list(notes)}
