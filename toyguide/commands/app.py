"""``toyguide app``: serve the explorer and the studies."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from toyguide.errors import InputError

NAME = "app"
HELP = "serve the explorer and the studies in the browser"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=5006, help="port; 0: any free one (default: 5006)")
    parser.add_argument(
        "--address", default="127.0.0.1", help="address; 0.0.0.0: open to the network (default: 127.0.0.1)"
    )
    parser.add_argument("--open", action="store_true", help="open the explorer in a browser")
    parser.add_argument(
        "--rules",
        action="append",
        default=[],
        metavar="FILE",
        type=Path,
        help="a Python file with rules of your own, read again whenever it changes; may be given several times",
    )


def run(args: argparse.Namespace) -> None:
    if not 0 <= args.port <= 65535:
        raise InputError(f"--port {args.port}: expected a whole number from 0 to 65535")
    if importlib.util.find_spec("panel") is None:
        raise InputError("the explorer needs Panel, which is not installed: expected pip install 'toyguide[app]'")
    if importlib.util.find_spec("toyguide_apps") is None:
        raise InputError("the explorer is missing: expected it to be installed with toyguide")
    from toyguide_apps.serve import serve

    serve(args.port, args.address, args.open, args.rules)
