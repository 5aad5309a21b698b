"""One-line messages to a visitor."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from typing import Any

import panel as pn

from toyguide.errors import InputError

__all__ = ["complain", "complain_of_link", "notice", "refuse", "told"]

_MOST = 6  # complaints listed
_LONG_LIST = re.compile(r": expected one of [^;]{60,}")  # beside other complaints there is no room for it

_LOG = logging.getLogger("toyguide.explorer")


def complain(problem: str) -> None:
    """Show an error to the visitor and log it."""
    _LOG.warning(problem)
    if pn.state.notifications is not None:
        pn.state.notifications.error(problem, duration=8000)


def complain_of_link(problems: list[str]) -> None:
    """Show what was wrong in a link, in one message."""
    if len(problems) == 1:
        return complain(problems[0])
    lines = [_LONG_LIST.sub("", p.removeprefix("URL: ")) for p in problems[:_MOST]]
    if len(problems) > _MOST:
        lines.append(f"and {len(problems) - _MOST} more")
    # A notification is plain text, of one paragraph.
    complain(f"{len(problems)} settings of this link were left out: {' • '.join(lines)}")


def notice(line: str) -> None:
    """Show a warning to the visitor."""
    if pn.state.notifications is not None:
        pn.state.notifications.warning(line, duration=8000)


def refuse(problem: Exception) -> None:
    """Handle an exception that a widget's event or a websocket message raised: show its first line.

    Holds no page, since Panel keeps a session's handler for as long as it keeps the session's document.
    """
    if not isinstance(problem, ValueError):
        _LOG.error("an event failed", exc_info=problem)
    complain(str(problem).splitlines()[0][:300])


def told(callback: Callable[..., None]) -> Callable[..., None]:
    """Decorate a control's callback so that an ``InputError`` is shown to the visitor."""

    @functools.wraps(callback)
    def careful(*arguments: Any) -> None:
        try:
            callback(*arguments)
        except InputError as problem:
            complain(str(problem))

    return careful
