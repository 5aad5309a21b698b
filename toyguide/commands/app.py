"""``toyguide app``: serve the explorer."""

from __future__ import annotations

import argparse
import errno
import importlib.util
import socket
from pathlib import Path

from toyguide.errors import InputError

NAME = "app"
HELP = "serve the explorer in the browser"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=5006, help="0 takes any free one (default: 5006)")
    parser.add_argument("--address", default="127.0.0.1", help="0.0.0.0 opens it to the network (default: 127.0.0.1)")
    parser.add_argument("--open", action="store_true", help="open it in the browser")


def run(args: argparse.Namespace) -> None:
    if not 0 <= args.port <= 65535:
        raise InputError(f"--port {args.port}: expected a whole number from 0 to 65535")
    if importlib.util.find_spec("panel") is None:
        raise InputError("the explorer needs Panel, which is not installed: expected pip install 'toyguide[app]'")
    from panel.io.server import get_server

    everywhere = args.address in ("0.0.0.0", "::")
    host = "localhost" if everywhere or ":" in args.address else args.address
    explorer = str(_explorer())
    try:
        port = args.port or _free_port(args.address)
        origins = ["*"] if everywhere else [f"{host}:{port}", f"localhost:{port}"]
        server = get_server({"explorer": explorer}, port=port, address=args.address, websocket_origin=origins)
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            free = _free_port(args.address)
            raise InputError(f"--port {args.port}: is taken, expected a free one, like {free}") from problem
        if problem.errno == errno.EACCES:
            raise InputError(f"--port {args.port}: is not ours to take, expected one from 1024") from problem
        raise InputError(f"--address {args.address!r}: expected an address of this machine ({problem})") from problem

    print(f"The explorer is at http://{host}:{port}/explorer (Ctrl-C stops it)", flush=True)
    if args.open:
        server.show("/explorer")
    server.run_until_shutdown()


def _free_port(address: str) -> int:
    (family, _, _, _, where), *_ = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)
    with socket.socket(family) as probe:
        probe.bind(where)
        return int(probe.getsockname()[1])


def _explorer() -> Path:
    spec = importlib.util.find_spec("toyguide_apps")
    folders = (spec.submodule_search_locations if spec else None) or []
    found = [p for p in (Path(f) / "explorer.py" for f in folders) if p.is_file()]
    if not found:
        raise InputError("the explorer is missing: expected it to be installed with toyguide")
    return found[0]
