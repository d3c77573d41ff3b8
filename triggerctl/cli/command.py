"""How a command line is read and how help is written, the same way for every command.

Options that may be given several times also take several words: ``--seeds 1 5 42`` is read as three
``--seeds``. Underscores in an option's name count as hyphens. Global options may stand before or after the
command.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from typer import TyperException
from typer.core import TyperCommand, TyperGroup, TyperOption

HELP_WIDTH = 100
"""Columns of help at most: longer lines are hard to read."""

GLOBAL_FLAGS = ("--debug",)
GLOBAL_VALUES = ("--root",)


def hyphenated(name: str) -> str:
    """The one spelling of an option's name."""
    return name.replace("_", "-")


def spread(args: Sequence[str], options: Iterable[TyperOption], *, needs_word: bool) -> list[str]:
    """The arguments with every repeatable option's words given one option each.

    Such an option takes all words up to the next option. Where the command needs a word of its own
    (`needs_word`: an experiment's name) and none is left, the last word taken goes back to it: ``--seeds 1 5
    my_exp``; a number does not, since it is meant as a seed.
    """
    named = {hyphenated(opt): option for option in options for opt in option.opts}
    spread_args: list[str] = []
    own_words = 0
    last_taken: int | None = None
    position = 0
    while position < len(args):
        word = args[position]
        position += 1
        if word == "--":
            return [*spread_args, word, *args[position:]]
        spread_args.append(word)
        if not word.startswith("-") or word == "-":
            own_words += 1
            continue
        option = named.get(hyphenated(word.split("=", 1)[0]))
        if option is None or option.is_flag:
            continue
        values = args[position : position + option.nargs - ("=" in word)]
        spread_args += values
        position += len(values)
        while option.multiple and position < len(args) and not _is_option(args[position]):
            spread_args += [word.split("=", 1)[0], args[position]]
            last_taken = len(spread_args) - 1
            position += 1
    if needs_word and own_words == 0 and last_taken is not None and not _is_number(spread_args[last_taken]):
        spread_args.append(spread_args[last_taken])
        del spread_args[last_taken - 1 : last_taken + 1]
    return spread_args


def _is_number(word: str) -> bool:
    return word.replace(",", "").isdecimal()


def _is_option(word: str) -> bool:
    return word.startswith("-") and not word.lstrip("-").replace(",", "").isdecimal()


def globals_first(args: Sequence[str]) -> list[str]:
    """The arguments with the global options moved in front of the command."""
    front: list[str] = []
    rest: list[str] = []
    words = iter(args)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in GLOBAL_FLAGS or word.startswith(tuple(f"{name}=" for name in GLOBAL_VALUES)):
            front.append(word)
        elif word in GLOBAL_VALUES:
            front += [word, *([value] if (value := next(words, None)) is not None else [])]
        else:
            rest.append(word)
    return front + rest


class Command(TyperCommand):
    """One subcommand."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        params = self.get_params(ctx)
        options = [param for param in params if isinstance(param, TyperOption)]
        needs_word = any(param.param_type_name == "argument" for param in params)
        try:
            return super().parse_args(ctx, spread(args, options, needs_word=needs_word))
        except TyperException as error:
            # Of an option without its value the parser does not say which command it read.
            vars(error)["ctx"] = getattr(error, "ctx", None) or ctx
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _write_help(self, ctx)


class Group(TyperGroup):
    """The program itself."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = globals_first(args)
        # Reading any value loads pydantic; who asks for a command's help gets it without.
        named = next((word for word in words if word in self.commands), None)
        if named is not None and not set(words).isdisjoint(ctx.help_option_names):
            self.commands[named].make_context(named, [ctx.help_option_names[0]], parent=ctx)
        return super().parse_args(ctx, words)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _write_help(self, ctx)


def _write_help(command: TyperCommand | TyperGroup, ctx: Any) -> None:
    """Print a command's help: what it does, how it is called, its arguments and options, and a real example.

    The docstring's first paragraphs are prose; indented lines in it are shown as they are."""
    from rich.table import Table
    from rich.text import Text

    from triggerctl.console import indented, out

    width = min(out.width, HELP_WIDTH)

    def section(title: str, rows: Sequence[tuple[str, str]]) -> None:
        grid = Table.grid(padding=(0, 3, 0, 0))
        grid.add_column(style="cyan", no_wrap=True)
        grid.add_column(ratio=1)
        for name, meaning in rows:
            grid.add_row(name, Text(meaning))
        out.print()
        out.print(Text(title, style="bold"))
        out.print(indented(grid), width=width)

    shown = [param for param in command.get_params(ctx) if not getattr(param, "hidden", False)]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    takes = ["COMMAND"] if isinstance(command, TyperGroup) else [str(param.metavar) for param in arguments]
    usage = " ".join([*takes, "[OPTIONS]"])
    out.print(Text.assemble(("usage  ", "dim"), (ctx.command_path, "bold"), f" {usage}"))
    for block in inspect.cleandoc(command.help or "").split("\n\n"):
        out.print()
        if block.startswith("    ") or "\n    " in block:
            for line in block.splitlines():
                out.print(_example_line(line), soft_wrap=True)
        else:
            out.print(Text(" ".join(block.split())), width=width)

    if isinstance(command, TyperGroup):
        commands = [
            (name, inspect.cleandoc(c.help or "").split("\n\n")[0]) for name, c in command.commands.items()
        ]
        section("Commands", [(name, " ".join(meaning.split())) for name, meaning in commands])
    if arguments:
        section("Arguments", [(str(param.metavar), str(getattr(param, "help", ""))) for param in arguments])
    options = [param.get_help_record(ctx) for param in shown if param not in arguments]
    section("Options", [record for record in options if record is not None])


def _example_line(line: str) -> Any:
    from rich.text import Text

    if not line.startswith("    "):
        return Text(line, style="bold")
    return Text(line, style="cyan" if line.lstrip().startswith("$") else "dim")
