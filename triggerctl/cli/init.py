"""``triggerctl init``: begin an experiment from a template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triggerctl.cli.options import COMMAND_LINE, Globals, Json, Settings
from triggerctl.errors import InputError

if TYPE_CHECKING:
    from triggerctl.cli.templates import Template
    from triggerctl.config.overrides import Override


def command(
    ctx: typer.Context,
    experiment: Annotated[
        str | None, typer.Argument(metavar="EXPERIMENT", help="A name, made under the root; or a path.")
    ] = None,
    template: Annotated[str, typer.Option(metavar="NAME", help="What to begin from.")] = "quickstart",
    show: Annotated[bool, typer.Option("--list", help="List the templates and end.")] = False,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Your model: a hub id, a folder, or builtin:tiny.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Your data, Alpaca format: a file, a URL, or builtin:NAME."),
    ] = None,
    settings: Settings = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a config.json that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Begin an experiment: a folder with a commented config.json, copied from a template.

    Example
        $ triggerctl init demo --template quickstart
        made      experiments/demo/config.json

        next      triggerctl validate demo
                  triggerctl run demo

        $ triggerctl init mine --model ./my_model --dataset rows.json --set epochs=3
    """
    from triggerctl import console
    from triggerctl.cli.templates import find_template

    if show:
        _list(as_json)
        return
    if not experiment:
        raise InputError(
            "the experiment has no name",
            where="triggerctl init",
            mend="triggerctl init my_exp --template quickstart; --list shows the templates",
        )
    made = _make(
        ctx.obj, experiment, find_template(template), _overrides(model, dataset, settings), force=force
    )
    if as_json:
        console.print_json({"made": list(map(str, made))})
        return
    for path in made:
        console.say("made", str(path))
    globals_: Globals = ctx.obj
    second = "sweep" if len(made) > 1 else "run"
    console.next_step(globals_.suggest("validate", experiment), globals_.suggest(second, experiment))


def _list(as_json: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from triggerctl import console
    from triggerctl.cli.templates import templates

    found = templates().values()
    if as_json:
        console.print_json(
            [{"name": t.name, "summary": t.summary, "strategies": list(t.strategies)} for t in found]
        )
        return
    longest = max(len(each.name) for each in found)
    for each in found:
        head = Table.grid(padding=(0, 2, 0, 0))
        head.add_column(width=longest)
        head.add_row(Text(each.name, style="bold"), Text(", ".join(each.strategies), style="dim"))
        console.out.print(head, console.indented(Text(each.summary)), sep="")
    console.next_step(["triggerctl", "init", "my_exp", "--template", "quickstart"])


def _overrides(model: str | None, dataset: str | None, settings: Sequence[str] | None) -> list[Override]:
    """What the command line puts in place of the template's values."""
    from triggerctl.config.overrides import Override, parse_override

    made = [parse_override(setting, origin=COMMAND_LINE) for setting in settings or ()]
    if model is not None:
        made.append(Override(("finetune_config", "model"), model, COMMAND_LINE, f"--model {model}"))
    if dataset is not None:
        if (
            not dataset.startswith(("builtin:", "http://", "https://"))
            and not Path(dataset).expanduser().is_file()
        ):
            raise InputError(
                "there is no such data file",
                where=f"--dataset {dataset}",
                why="it is neither a file here, nor a URL, nor builtin:…",
                mend="give the path of a JSON or JSON lines file",
            )
        made.append(Override(("dataset_url",), dataset, COMMAND_LINE, f"--dataset {dataset}"))
    return made


def _make(
    globals_: Globals, name: str, template: Template, overrides: Sequence[Override], *, force: bool
) -> list[Path]:
    """Write the experiment's files and return them. Nothing is written unless the configuration holds."""
    from triggerctl.cli.rewriting import with_values
    from triggerctl.config.jsonc import parse
    from triggerctl.config.load import parse_config
    from triggerctl.experiment.atomic import make_folder, write_text_atomic
    from triggerctl.experiment.find import experiments_root, is_path

    folder = Path(name).expanduser() if is_path(name) else experiments_root(globals_.root) / name
    present = [folder / path.name for path in template.files if (folder / path.name).exists()]
    if present and not force:
        raise InputError(
            "there is an experiment of that name",
            where=", ".join(map(str, present)),
            why="what is there is never replaced unasked",
            mend="choose another name, or --force to replace it (results stay)",
        )
    swept = folder / "sweep.json"
    if swept.exists() and not any(path.name == swept.name for path in template.files):
        raise InputError(
            "the folder has a sweep.json, and this template has none to replace it with",
            where=str(swept),
            why="triggerctl sweep would go on training what it lists",
            mend="move it away or remove it, then the same command again",
        )
    text = template.config.read_text(encoding="utf-8")
    values = parse(text, str(template.config)).value
    changes = {o.key: _from_folder(o, folder) for o in overrides}
    if isinstance(values, dict) and "experiment_name" in values:
        changes = {("experiment_name",): folder.absolute().name, **changes}
    parse_config(values, path=folder / "config.json", overrides=overrides)
    new_text = with_values(text, changes)
    parse_config(parse(new_text, str(folder / "config.json")).value, path=folder / "config.json")
    texts = {path.name: path.read_text(encoding="utf-8") for path in template.files} | {
        "config.json": new_text
    }
    make_folder(folder)
    for file_name, content in texts.items():
        write_text_atomic(folder / file_name, content)
    return [folder / file_name for file_name in texts]


def _from_folder(override: Override, folder: Path) -> object:
    """An override's value as it must stand in the folder's config: a path given to --model or --dataset
    starts in the working folder, one in the config starts in the config's folder."""
    from triggerctl.config.paths import rebase_paths

    if not override.where.startswith(("--model ", "--dataset ")):
        return override.value
    values: object = override.value
    for name in reversed(override.key):
        values = {name: values}
    assert isinstance(values, dict)
    moved: object = rebase_paths(values, Path.cwd(), folder)
    for name in override.key:
        assert isinstance(moved, dict)
        moved = moved[name]
    return moved
