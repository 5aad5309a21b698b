"""How fast the explorer answers: a real server in a process of its own, and visitors who move a slider.

A visitor without a browser holds a session over the websocket, sets the slider as a browser does and waits until the
picture that belongs to it has arrived: the points of all trajectories and their title in one message. One visitor
presses keys; many at once drag. With a Chromium there, one more visitor presses keys in it; its times include the
drawing.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import panel as pn
from bokeh.client import pull_session
from bokeh.document.events import MessageSentEvent
from bokeh.events import DocumentReady

import toyguide_apps.explorer_page.page  # noqa: F401  (so that the models a server sends are known here too)
from toyguide import Experiment
from toyguide_apps.explorer_page.state import ExplorerState

__all__ = ["ExplorerFigures", "Shown", "Spread", "Visitor", "measure_explorer", "serving", "stale"]

_SCENE = {"layers": "guidance,region,samples", "step": "24"}
"""512 trajectories, a density, some 400 arrows that depend on the slider, and the metrics."""
_PATIENCE = 120.0  # seconds, for a slow machine
_LOOK = 0.1  # seconds that a visitor looks at a picture
_DRAG = 3  # values that a drag passes
_DRAG_PAUSE = 0.03  # seconds between two of them
_SETTLED = 0.5  # seconds after which a picture that still came would be a late one
_FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@dataclass(frozen=True)
class Spread:
    """Milliseconds from a change to its finished picture."""

    p50: float
    p95: float
    max: float

    @classmethod
    def of(cls, seconds: list[float]) -> Spread:
        """The spread of some times in seconds."""
        p50, p95, highest = np.percentile(1e3 * np.asarray(seconds), [50, 95, 100])
        return cls(float(p50), float(p95), float(highest))


@dataclass(frozen=True)
class ExplorerFigures:
    """What ``measure_explorer`` measures; ready for JSON through ``dataclasses.asdict``.

    Attributes:
        sessions: How many visitors there were at once.
        changes: How many changes each of them made.
        one: One visitor alone, pressing keys.
        many: All at once, dragging; from the release.
        errors: Pictures that never came and failures in the server's log.
        stale: Pictures of an old value that were left standing or came after a newer one.
        first_picture_s: From the start of the server's process to the first picture, in seconds.
        browser: One visitor in Chromium, until the picture is drawn; None where there is none.
        browser_first_picture_s: The same as ``first_picture_s`` in a Chromium that was open before.
    """

    sessions: int
    changes: int
    one: Spread
    many: Spread
    errors: int
    stale: int
    first_picture_s: float
    browser: Spread | None
    browser_first_picture_s: float | None


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture as it arrived: the right plot's title, and where its points end, with shape ``(n, 2)``."""

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


@contextmanager
def serving() -> Iterator[tuple[str, Callable[[], str]]]:
    """The explorer's server in a process of its own, which ends with the block.

    Yields:
        Its address, and what gives its log so far.
    """
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:

        def said() -> str:
            with open(log.name, encoding="utf-8") as file:
                return file.read()

        command = [sys.executable, "-m", "toyguide", "app", "--port", "0"]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            give_up = time.monotonic() + _PATIENCE
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


class Visitor:
    """A session over the websocket, without a browser.

    Args:
        address: The explorer's.
        patience: Seconds to wait for a picture.
    """

    def __init__(self, address: str, patience: float = _PATIENCE) -> None:
        self._session = pull_session(url=address, arguments=dict(_SCENE))
        self._patience = patience
        self._session._connection._socket._socket.protocol.set_nodelay(True)  # as a browser does
        document = self._session.document
        sliders = [m for m in document.models if getattr(getattr(m, "data", None), "fixed_end", None) == 30.0]
        self._slider = sliders[0].data
        self._title = document.get_model_by_name("panel-2-figure").title
        self._frames = document.get_model_by_name("panel-2-frames")
        self.titles: list[str] = []
        self._title.on_change("text", lambda _attr, _old, new: self.titles.append(new))
        # What a browser says when it has drawn the page, and the server waits for.
        document.callbacks.trigger_on_change(MessageSentEvent(document, "bokeh_event", DocumentReady()))
        self.wait(lambda: len(self._frames.data["x"]) > 0)

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
        """What the right plot holds."""
        n = len(self._frames.data["x"]) // 33
        ends = np.stack([self._frames.data[axis][-n:] for axis in "xy"], -1)
        return Shown(self._title.text, ends)

    def move(self, value: float, passing: int = 0) -> float | None:
        """Drag the slider to a value, passing others; seconds from its release to its finished picture, if it came."""
        for i in range(passing, 0, -1):
            self.change(round(value - 0.001 * i, 4), release=False)
            self._idle(_DRAG_PAUSE)
        began = time.perf_counter()
        self.change(value)
        came = self.wait(lambda: _finished(self._title.text, value))
        return time.perf_counter() - began if came else None

    def last(self) -> Shown:
        """What the right plot holds when nothing more comes."""
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


def measure_explorer(sessions: int = 10, changes: int = 20) -> ExplorerFigures:
    """Serve the explorer and measure how fast it answers.

    Args:
        sessions: Visitors at once.
        changes: Of the slider, by each of them.

    Raises:
        RuntimeError: If the server does not start.
    """
    pn.extension("katex", notifications=True)
    began = time.perf_counter()
    with serving() as (address, said):
        visitor = Visitor(address)
        first_picture = time.perf_counter() - began
        alone = _visit(visitor, [round(6 + 0.1 * i, 1) for i in range(changes)])
        with ThreadPoolExecutor(sessions) as pool:
            # No two visitors want the same picture.
            wanted = [[round(2 + 0.01 * (i * sessions + j), 2) for i in range(changes)] for j in range(sessions)]
            visitors = list(pool.map(Visitor, [address] * sessions))
            together = list(pool.map(lambda v, values: _visit(v, values, _DRAG), visitors, wanted))
        failures = len(re.findall(r"^Traceback|\bERROR\b", said(), re.MULTILINE))
    missing = sum(t is None for times, _ in (alone, *together) for t in times)
    browser, browser_first_picture = _in_chromium(changes) or (None, None)
    return ExplorerFigures(
        sessions=sessions,
        changes=changes,
        one=Spread.of([t for t in alone[0] if t is not None]),
        many=Spread.of([t for times, _ in together for t in times if t is not None]),
        errors=failures + missing,
        stale=sum(count for _, count in (alone, *together)),
        first_picture_s=first_picture,
        browser=browser,
        browser_first_picture_s=browser_first_picture,
    )


def _visit(visitor: Visitor, values: list[float], passing: int = 0) -> tuple[list[float | None], int]:
    """One visitor's changes, to rising values: the times, and how many stale pictures were seen."""
    times = []
    for value in values:
        times.append(visitor.move(value, passing))
        time.sleep(_LOOK)
    last = visitor.last()
    visitor.leave()
    seen = [float(w[1]) for title in visitor.titles if (w := re.search(r"\(w = ([\d.]+)\)", title))]
    return times, sum(b < a for a, b in itertools.pairwise(seen)) + stale(last, values[-1])


_WATCH = """() => {
    window.drawn = []
    const title = Bokeh.documents[0].get_model_by_name('panel-2-figure').title
    addEventListener('keydown', () => { window.pressed = performance.now() }, true)
    title.properties.text.change.connect(() => {
        if (title.text.includes('first')) return
        const done = () => window.drawn.push(performance.now() - window.pressed)
        requestAnimationFrame(() => requestAnimationFrame(done))
    })
}"""
_HAS_PICTURE = """() => {
    try { return Bokeh.documents[0].get_model_by_name('panel-2-frames').data.x.length > 0 } catch (e) { return false }
}"""


def _chromium() -> str | None:
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def _in_chromium(changes: int) -> tuple[Spread, float] | None:
    """Times in a real browser, and seconds to its first picture; None if there is none, or nothing to drive it with."""
    chromium = _chromium()
    if chromium is None or importlib.util.find_spec("playwright") is None:
        return None
    from playwright.sync_api import sync_playwright

    patience = 1e3 * _PATIENCE
    query = "&".join(f"{k}={v}" for k, v in _SCENE.items())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            began = time.perf_counter()
            with serving() as (address, _said):
                page.goto(f"{address}?{query}", timeout=patience)
                page.wait_for_function(_HAS_PICTURE, timeout=patience)
                page.locator(".bk-Canvas").last.wait_for(timeout=patience)
                first_picture = time.perf_counter() - began
                page.wait_for_timeout(1e3)
                page.evaluate(_WATCH)
                slider = page.locator("input[type=range]").first
                for i in range(1, changes + 1):
                    slider.press("ArrowRight")
                    page.wait_for_function("(n) => window.drawn.length >= n", arg=i, timeout=patience)
                    page.wait_for_timeout(1e3 * _SETTLED)
                drawn = page.evaluate("() => window.drawn")
            return Spread.of([1e-3 * t for t in drawn]), first_picture
        finally:
            browser.close()
