"""Pictures come first: what is computed beside them waits while one is being made, and a moment longer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

__all__ = ["PICTURES", "Precedence"]


class Precedence:
    """Work that others wait for.

    Args:
        rest: Seconds for which others go on waiting after it, while its result is sent and the next may be asked for.
    """

    def __init__(self, rest: float) -> None:
        self._free = Condition()
        self._working = 0
        self._rest, self._rested = rest, 0.0

    @contextmanager
    def first(self) -> Iterator[None]:
        """While this lasts, others wait."""
        with self._free:
            self._working += 1
        try:
            yield
        finally:
            with self._free:
                self._working -= 1
                self._rested = time.monotonic() + self._rest
                self._free.notify_all()

    def wait(self) -> None:
        """Return once nobody is first, or has been a moment ago."""
        with self._free:
            while self._working or time.monotonic() < self._rested:
                self._free.wait(None if self._working else self._rested - time.monotonic())


PICTURES = Precedence(rest=0.3)
"""That of the pictures, for all visitors together."""
