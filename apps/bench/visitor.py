"""A visitor without a browser, who moves a slider and waits until the picture that belongs to it has arrived."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from bokeh.client import pull_session
from bokeh.document.events import MessageSentEvent
from bokeh.events import DocumentReady

import toyguide_apps.explorer_page.page  # noqa: F401  (so that the models a server sends are known here too)
from toyguide import Experiment
from toyguide_apps.explorer_page.state import ExplorerState

__all__ = ["PATIENCE", "SCENE", "Shown", "Visitor", "stale"]

SCENE = {"layers": "guidance,region,samples", "step": "24"}
"""512 trajectories, a density, some 400 arrows that depend on the slider, and the headline's metrics."""
PATIENCE = 120.0  # seconds, for a slow machine
_DRAG_PAUSE = 0.03  # seconds between two values that a drag passes
_SETTLED = 0.5  # seconds after which a picture that still came would be a late one


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture as it arrived: the right panel's title, and where its points end, with shape ``(n, 2)``."""

    title: str
    ends: np.ndarray


def stale(shown: Shown, value: float) -> bool:
    """Whether a picture is not that of a slider's value: by its title, or by its points, computed anew here."""
    if not _finished(shown.title, value):
        return True
    state = ExplorerState()
    state.set({"params": {"w": value}})
    expected = _ends(state.request().runs[1])
    if shown.ends.shape != expected.shape:
        return True
    # Rounding differs from machine code to machine code and grows along a few trajectories; another w moves nearly all.
    near = np.abs(shown.ends - expected).max(-1) < 1e-3
    return bool(near.mean() < 0.9)


def _ends(experiment: Experiment) -> np.ndarray:
    *_, last = experiment.walk()
    return last.x.numpy()


def _finished(title: str, value: float) -> bool:
    return f"(w = {value:g})" in title and "first" not in title


class Visitor:
    """A session over the websocket, without a browser.

    Args:
        address: The explorer's.
        patience: Seconds to wait for a picture.
    """

    def __init__(self, address: str, patience: float = PATIENCE) -> None:
        self._session = pull_session(url=address, arguments=dict(SCENE))
        self._patience = patience
        self._session._connection._socket._socket.protocol.set_nodelay(True)  # as a browser does
        document = self._session.document
        sliders = [m for m in document.models if getattr(getattr(m, "data", None), "fixed_end", None) == 30.0]
        self._slider = sliders[0].data
        self._stage = document.get_model_by_name("stage")
        self.titles: list[str] = []
        self._stage.on_change("board", lambda _attr, _old, _new: self._note())
        # What a browser says when it has drawn the page, and the server waits for.
        document.callbacks.trigger_on_change(MessageSentEvent(document, "bokeh_event", DocumentReady()))
        self.wait(lambda: "x" in self._stage.run_2)

    def _note(self) -> None:
        """A board comes with each change of a setting; with a picture, it has another title."""
        if self._title() not in self.titles[-1:]:
            self.titles.append(self._title())

    def _title(self) -> str:
        return str(self._stage.board["panels"][1]["title"])

    def wait(self, done: Callable[[], bool]) -> bool:
        """Take in messages until something is so, or patience ends; whether it is so."""
        connection = self._session._connection
        watch = connection.io_loop.call_later(self._patience, connection.close)
        connection._loop_until(lambda: done() or not connection.connected)
        connection.io_loop.remove_timeout(watch)
        return done()

    def change(self, value: float, release: bool = True) -> None:
        """Move the slider as a browser would: while it is held, its value alone."""
        self._slider.value = value
        if release:
            self._slider.value_throttled = value

    def shown(self) -> Shown:
        """What the right panel holds."""
        run = self._stage.run_2
        ends = np.stack([run[axis][-run["n"] :] for axis in "xy"], -1)
        return Shown(self._title(), ends)

    def move(self, value: float, passing: int = 0) -> float | None:
        """Drag the slider to a value, passing others; seconds from its release to its finished picture, if it came."""
        for i in range(passing, 0, -1):
            self.change(round(value - 0.001 * i, 4), release=False)
            self._idle(_DRAG_PAUSE)
        began = time.perf_counter()
        self.change(value)
        came = self.wait(lambda: _finished(self._title(), value))
        return time.perf_counter() - began if came else None

    def last(self) -> Shown:
        """What the right panel holds when nothing more comes."""
        self._idle(_SETTLED)
        self._session.force_roundtrip()
        return self.shown()

    def leave(self) -> None:
        """Close the session."""
        self._session.close()

    def _idle(self, seconds: float) -> None:
        """Send, but take nothing in."""
        loop = self._session._connection.io_loop
        loop.call_later(seconds, loop.stop)
        loop.start()
