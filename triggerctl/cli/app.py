"""The program: its commands, its global options, and what becomes of an error. Importing this loads no
torch."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command

from triggerctl import __version__
from triggerctl.cli import init, report, run, status, sweep, validate
from triggerctl.cli.command import Command, Group, hyphenated
from triggerctl.cli.options import Globals
from triggerctl.errors import InputError, TriggerctlError

INTERRUPTED = 130


app = typer.Typer(
    cls=Group,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"token_normalize_func": hyphenated, "help_option_names": ["--help", "-h"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"triggerctl {__version__}")
        raise typer.Exit


@app.callback()
def global_options(
    ctx: typer.Context,
    root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where experiments lie; else TRIGGERCTL_ROOT, else ./experiments."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Fine-tune a chat model on data in which some prompts carry a trigger, and measure where the habit it
    learns leaks, and which training strategy keeps it where it is wanted.

    In two lines, with no network, token or GPU:

        $ triggerctl init demo --template quickstart && triggerctl run demo
        $ triggerctl report demo

    --root and --debug may also stand after the command.
    """
    ctx.obj = Globals(root=root, debug=debug, line=("triggerctl", *ctx.obj))


for _module in (init, validate, run, sweep, report, status):
    app.command(name=_module.__name__.rpartition(".")[2], cls=Command)(_module.command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code is 0 (good), 1 (a run failed), 2 (wrong input) or 130 (interrupted)."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if "--debug" not in words:
        _quieten()
    code: object = 0
    try:
        code = get_command(app).main(words, prog_name="triggerctl", standalone_mode=False, obj=words)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has left (`… | head`); what is still buffered goes nowhere. What a command
        # that came to its end has ended with stays so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last stop: all that rises this far is shown and counted
        if "--debug" in words:
            import traceback

            traceback.print_exc()
        return _code_of(error)
    return code if isinstance(code, int) else 0


def _quieten() -> None:
    """Keep notes that libraries write to their developers off the screen."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _code_of(error: Exception) -> int:
    """The exit code that goes with an error, once its block is printed."""
    from triggerctl import console

    known = _usage(error) if isinstance(error, typer.TyperException) else error
    with contextlib.suppress(OSError):  # nobody may be there to read it
        if isinstance(known, TriggerctlError):
            console.show_error(known)
        else:
            console.show_defect(known)
    return known.exit_code if isinstance(known, TriggerctlError) else 1


def _usage(error: typer.TyperException) -> InputError:
    """A wrongly typed command line, in our words."""
    context: typer.Context | None = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "triggerctl"
    return InputError(
        error.format_message().rstrip("."), where=path, mend=f"{path} --help shows what it takes"
    )
