"""Pictures come first: what is computed beside them waits while one is being made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

__all__ = ["PICTURES", "Precedence"]


class Precedence:
    """Work that others wait for."""

    def __init__(self) -> None:
        self._free = Condition()
        self._working = 0

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
                self._free.notify_all()

    def wait(self) -> None:
        """Return once nobody is first."""
        with self._free:
            self._free.wait_for(lambda: not self._working)


PICTURES = Precedence()
"""That of the pictures, over all sessions."""
