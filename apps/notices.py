"""Telling a visitor, in one line, that something is not as it should be."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import panel as pn

from toyguide.errors import InputError

__all__ = ["complain", "told"]

_LOG = logging.getLogger("toyguide.explorer")


def complain(problem: str) -> None:
    """Show a line to the visitor, and keep it in the log."""
    _LOG.warning(problem)
    if pn.state.notifications is not None:
        pn.state.notifications.error(problem, duration=8000)


def told(callback: Callable[..., None]) -> Callable[..., None]:
    """The callback of a control, with wrong input told to the visitor."""

    @functools.wraps(callback)
    def careful(*arguments: Any) -> None:
        try:
            callback(*arguments)
        except InputError as problem:
            complain(str(problem))

    return careful
