"""The server of the explorer and of the studies: what ``toyguide app`` runs."""

from __future__ import annotations

import errno
import importlib
import socket
from collections.abc import Sequence
from pathlib import Path

from toyguide.errors import InputError
from toyguide_apps.explorer_page.compute import warm
from toyguide_apps.explorer_page.own_rules import OWN

__all__ = ["EXPLORER", "LEAGUE", "STUDIES", "serve"]

EXPLORER = Path(__file__).with_name("explorer.py")
STUDIES = Path(__file__).with_name("studies.py")
LEAGUE = Path(__file__).with_name("league.py")


def serve(port: int, address: str, show: bool = False, own: Sequence[Path] = ()) -> None:
    """Serve the explorer and the studies until Ctrl-C, and say where; ``/`` leads to the explorer.

    Args:
        port: The port; 0 takes any free one.
        address: An address of this machine; 0.0.0.0 opens it to the network.
        show: Open it in the browser.
        own: Python files with rules of one's own, which are read again whenever they change.

    Raises:
        InputError: If the port or the address cannot be had, or there is no such file.
    """
    for path in own:
        OWN.add(path)
    for problem in OWN.problems:
        print(problem, flush=True)
    if own:
        OWN.watch()
    warm()
    # Panel takes a second to import; meanwhile the first picture is being computed beside it.
    from panel.io.server import get_server
    from tornado.web import RedirectHandler

    everywhere = address in ("0.0.0.0", "::")
    host = "localhost" if everywhere or ":" in address else address
    try:
        chosen = port or _free_port(address)
        origins = ["*"] if everywhere else [f"{host}:{chosen}", f"localhost:{chosen}"]
        server = get_server(
            {"explorer": str(EXPLORER), "studies": str(STUDIES), "league": str(LEAGUE)},
            port=chosen,
            address=address,
            websocket_origin=origins,
            extra_patterns=[("/?", RedirectHandler, {"url": "/explorer", "permanent": False})],
        )
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            free = _free_port(address)
            raise InputError(f"--port {port}: is taken, expected a free one, like {free}") from problem
        if problem.errno == errno.EACCES:
            raise InputError(f"--port {port}: is not ours to take, expected one from 1024") from problem
        raise InputError(f"--address {address!r}: expected an address of this machine ({problem})") from problem

    print(f"The explorer is at http://{host}:{chosen}/explorer (Ctrl-C stops it),", flush=True)
    print(f"the studies are at http://{host}:{chosen}/studies", flush=True)
    importlib.import_module("toyguide_apps.studies_page.page")  # not only when the first visitor comes
    if show:
        server.show("/explorer")
    server.run_until_shutdown()


def _free_port(address: str) -> int:
    (family, _, _, _, where), *_ = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)
    with socket.socket(family) as probe:
        probe.bind(where)
        return int(probe.getsockname()[1])
