"""A server in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from toyguide_apps.bench.visitor import PATIENCE

__all__ = ["serving"]

_APP = (sys.executable, "-m", "toyguide", "app", "--port", "0")


@contextmanager
def serving(command: Sequence[str] = _APP) -> Iterator[tuple[str, Callable[[], str]]]:
    """A server in a process of its own, which ends with the block.

    Args:
        command: Starts it; it must say the explorer's address.

    Yields:
        The explorer's address, and what gives the log so far.

    Raises:
        RuntimeError: If it does not start.
    """
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:

        def said() -> str:
            with open(log.name, encoding="utf-8") as file:
                return file.read()

        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            give_up = time.monotonic() + PATIENCE
            while not (address := re.search(r"http://\S+/explorer", said())):
                if process.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError(f"the explorer's server did not start: {said()[-2000:]}")
                time.sleep(0.02)
            yield address[0], said
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
