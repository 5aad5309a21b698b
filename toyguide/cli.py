"""The command line: finds the subcommands, parses arguments, and reports invalid input in one line with exit code 2.

Each file in ``toyguide/commands`` is a subcommand. It defines

    NAME            the subcommand's name
    HELP            one line
    add_arguments   (parser) -> None
    run             (args) -> None; raises InputError for invalid input; slow imports belong inside it

Exit codes: 0 success, 2 invalid input, 130 interrupted, 141 broken pipe.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

import toyguide.commands
from toyguide import __version__
from toyguide.errors import InputError, unknown

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises InputError instead of printing its usage and exiting."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise InputError(message)

    def _get_value(self, action: argparse.Action, text: str) -> Any:
        try:
            return super()._get_value(action, text)
        except argparse.ArgumentError as problem:
            kinds: dict[Any, str] = {int: "a whole number", float: "a number"}
            if action.type not in kinds:
                raise
            raise InputError(f"{_called(action)} {text!r}: expected {kinds[action.type]}") from problem

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise unknown(_called(action), value, [str(c) for c in action.choices])

    def refuse(self, surplus: Sequence[str]) -> NoReturn:
        """Raise the error for unrecognised arguments."""
        flags = [s for a in self._actions for s in a.option_strings if s.startswith("--")]
        flag = next((s for s in surplus if s.startswith("-")), None)
        if flag is None:
            raise InputError(f"unexpected argument {surplus[0]!r}: see {self.prog} --help")
        raise unknown(f"flag of {self.prog}", flag.partition("=")[0], flags)


class _Version(argparse.Action):
    """Prints the version and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from toyguide._speed.compiled import loops

        print(f"toyguide {__version__} ({'compiled loops' if loops() else 'no compiled loops, all in torch'})")
        parser.exit()


def _called(action: argparse.Action) -> str:
    return max(action.option_strings, key=len, default=action.dest)


def _commands() -> list[ModuleType]:
    names = [m.name for m in pkgutil.iter_modules(toyguide.commands.__path__)]
    return [importlib.import_module(f"toyguide.commands.{name}") for name in names]


def _run(argv: Sequence[str] | None) -> None:
    parser = _Parser(prog="toyguide", description="A lab bench for diffusion guidance on exactly known distributions.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version, and whether loops are compiled")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    parsers: dict[str | None, _Parser] = {None: parser}
    for command in _commands():
        parsers[command.NAME] = subparsers.add_parser(command.NAME, help=command.HELP, description=command.HELP)
        command.add_arguments(parsers[command.NAME])
        parsers[command.NAME].set_defaults(run=command.run)

    args, surplus = parser.parse_known_args(argv)
    if surplus:
        parsers[args.command].refuse(surplus)
    if args.command is None:
        parser.print_help()
        return
    args.run(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: The arguments; None for the process's own.

    Returns:
        The exit code.
    """
    try:
        _run(argv)
        sys.stdout.flush()
    except InputError as problem:
        print(f"toyguide: {' '.join(str(problem).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("toyguide: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The interpreter flushes the buffer again on exit, which must not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0
