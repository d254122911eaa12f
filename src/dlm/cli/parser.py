"""From argv to a request: which action, with which values.

Decides: how the table of actions becomes a parser, and what a wrong command line is told.
May not know: what an action does.

Only the parser of the action that is asked for is made: a start of the tool is short.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from dlm.cli.actions import ACTIONS, COMMON_OPTIONS, Action, Option
from dlm.cli.values import READERS, Value
from dlm.errors import UsageError

PROGRAM = "dlm_tool"


class Request:
    """What the command line asks for.

    ``values`` holds the arguments and options by name, those that were not given are missing;
    switches are there when they were given, as 1. ``attempt`` says in words what is tried.
    """

    def __init__(self, action: Action, values: dict[str, Value], attempt: str) -> None:
        self.action = action
        self.values = values
        self.attempt = attempt

    def has(self, switch: str) -> bool:
        """Say whether a switch was given."""
        return switch in self.values


class CommandLineError(UsageError):
    """A command line that cannot be meant; ``attempt`` says in words what was tried."""

    def __init__(self, message: str, attempt: str) -> None:
        super().__init__(message)
        self.attempt = attempt


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def find_action(argv: Sequence[str]) -> str | None:
    """Return the first word that is no option and no option's value, None if there is none."""
    takes_value = {option.flag for option in COMMON_OPTIONS if option.metavar}
    words = iter(argv)
    for word in words:
        if word in takes_value:
            next(words, None)
        elif not word.startswith("-") or word == "-":
            return word
    return None


def _formatter(prog: str) -> argparse.HelpFormatter:
    # A width of its own: asking for the terminal's loads shutil and three compressors.
    return argparse.RawDescriptionHelpFormatter(prog, width=100)


def _parser_of(action: Action) -> _Parser:
    parser = _Parser(
        prog=f"{PROGRAM} {action.name}",
        usage=f"{PROGRAM} {' '.join(action.usage().split())} [options]",
        description=f"{action.summary[0].upper()}{action.summary[1:]}.\n\n{action.text}",
        epilog="examples:\n" + "\n".join(f"  {PROGRAM} {each}" for each in action.examples),
        formatter_class=_formatter,
        add_help=False,
        allow_abbrev=False,
    )
    group = parser.add_argument_group("options")
    for option in (*action.options, *COMMON_OPTIONS):
        if option.metavar:
            group.add_argument(*option.flags(), metavar=option.metavar, help=option.help)
        else:
            group.add_argument(*option.flags(), action="store_true", help=option.help)
    group.add_argument("-h", "--help", action="store_true", help="show this text")
    return parser


def help_text(action: Action) -> str:
    """Return the help of one action."""
    return _parser_of(action).format_help()


def parse(argv: Sequence[str], name: str) -> Request:
    """Read a command line whose action is ``name``; raises ``UsageError``."""
    if name not in ACTIONS:
        raise UsageError(f"unknown action {name!r}; {PROGRAM} alone lists them")
    action = ACTIONS[name]
    options, words = _parser_of(action).parse_known_args(list(argv))
    words.remove(name)
    attempt = " ".join((name, *words[: action.spoken]))
    try:
        given = vars(options)
        for word in words:
            if word.startswith("-") and not word[1:2].isdigit():
                raise UsageError(f"unknown option {word}")
        values = _bind(action, words)
        for option in (*action.options, *COMMON_OPTIONS):
            _bind_option(option, given, values)
    except UsageError as error:
        raise CommandLineError(str(error), attempt) from error
    return Request(action, values, attempt)


def _bind(action: Action, words: list[str]) -> dict[str, Value]:
    """Give each argument its word; the last one may take none, or all that are left."""
    needed = sum(argument.many in {"", "+"} for argument in action.arguments)
    endless = any(argument.many == "+" for argument in action.arguments)
    if len(words) < needed or (len(words) > len(action.arguments) and not endless):
        count = "too few" if len(words) < needed else "too many"
        usage = " ".join(action.usage().split())
        raise UsageError(f"{count} arguments; usage: {PROGRAM} {usage}")
    values: dict[str, Value] = {}
    for index, argument in enumerate(action.arguments):
        read = READERS[argument.kind]
        if argument.many == "+":
            values[argument.name] = tuple(read(word) for word in words[index:])  # type: ignore[assignment]
        elif index < len(words):
            values[argument.name] = read(words[index])
    return values


def _bind_option(option: Option, given: dict[str, object], values: dict[str, Value]) -> None:
    name = option.flag.removeprefix("--").replace("-", "_")
    found = given[name]
    if isinstance(found, str):
        values[name] = READERS[option.kind](found)
    elif found:
        values[name] = 1
