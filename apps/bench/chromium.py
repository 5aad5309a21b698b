"""The explorer in a real Chromium, and the two pages that it is compared with.

An answer is compared with a message that draws two finished pictures on the same stage in turn (``redraw_page``); the
time of the guided run that it shows is not counted. A first picture is compared with a page of the same template with
one empty plot (``empty_page``). Both come from the same server, in turn with what they are compared with, so that a
busy machine slows both. Playing is timed from one drawn picture to the next, with the layers of the opening screen.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toyguide_apps.bench.server import serving
from toyguide_apps.bench.visitor import PATIENCE, SCENE
from toyguide_apps.serve import EXPLORER

__all__ = ["InChromium", "in_chromium"]

_FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
_HERE = Path(__file__).parent
_QUERY = "&".join(f"{k}={v}" for k, v in SCENE.items()) + "&table=true"  # which says how long a run took
_FOUR = "panels=4&n=2048"
_SETTLED = 500  # milliseconds between two changes
_LOADS = 5  # of each page
_TIMEOUT = 1e3 * PATIENCE

_WATCH = """() => {
    window.drawn = []
    addEventListener('keydown', () => { window.pressed = performance.now() }, true)
    const set = toyguide.set.bind(toyguide)
    let shown = toyguide.boarded.panels[1].title
    toyguide.set = (name, value) => {
        set(name, value)
        if (name !== 'board' || value.panels[1].title === shown) return
        shown = value.panels[1].title
        if (shown.includes('first')) return
        const done = () => window.drawn.push(performance.now() - window.pressed)
        requestAnimationFrame(() => requestAnimationFrame(done))
    }
}"""
_HAS_PICTURE = """() =>
    window.toyguide?.frames > 0 && toyguide.panels.length && toyguide.panels.every((panel) => panel.run)"""
_PLAY = """() => new Promise((resolve) => {
    const times = []
    let before = toyguide.frames
    const look = (now) => {
        if (toyguide.frames !== before) times.push(now)
        before = toyguide.frames
        if (toyguide.playing) requestAnimationFrame(look)
        else resolve(times)
    }
    toyguide.toggle()
    requestAnimationFrame(look)
})"""


@dataclass(frozen=True)
class InChromium:
    """What is measured in a Chromium; times in seconds.

    Attributes:
        answers: From each key press to the drawn picture.
        runs: The guided runs among them.
        redraws: From each key press to the same plots redrawn.
        start_s: From the start of the server's process to the first picture.
        loads: From the address to the first picture, in a browser without a cache.
        empty_loads: The same of the empty page.
        pictures: From one drawn picture to the next while four panels of 2,048 samples play.
    """

    answers: list[float]
    runs: list[float]
    redraws: list[float]
    start_s: float
    loads: list[float]
    empty_loads: list[float]
    pictures: list[float]

    @property
    def answer_ratio(self) -> float:
        """How many times a redraw an answer takes without its guided run, by their medians."""
        net = np.asarray(self.answers) - np.asarray(self.runs)
        return float(np.median(net) / np.median(self.redraws))

    @property
    def load_ratio(self) -> float:
        """How many times an empty page a first picture takes, by their medians."""
        return float(np.median(self.loads) / np.median(self.empty_loads))


def chromium() -> str | None:
    """The browser's command, if there is one."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def in_chromium(changes: int) -> InChromium | None:
    """Measure the explorer in Chromium; None if there is none, or nothing to drive it with.

    Args:
        changes: How many key presses.

    Raises:
        RuntimeError: If a server does not start.
    """
    command = chromium()
    if command is None or importlib.util.find_spec("playwright") is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=command, args=_FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            began = time.perf_counter()
            with serving() as (address, _said):
                page.goto(address, timeout=_TIMEOUT)
                _see_picture(page)
                start = time.perf_counter() - began
            page.close()
            pages = [EXPLORER, _HERE / "empty_page.py", _HERE / "redraw_page.py"]
            with serving([sys.executable, "-m", "panel", "serve", *map(str, pages), "--port", "0"]) as (address, _said):
                answers, runs = _press(browser, f"{address}?{_QUERY}", changes)
                redraws, _ = _press(browser, address.replace("explorer", "redraw_page"), changes)
                loads: dict[str, list[float]] = {"explorer": [], "empty_page": []}
                for _ in range(_LOADS):
                    for name, times in loads.items():
                        times.append(_load(browser, address.replace("explorer", name)))
                pictures = _play(browser, f"{address}?{_FOUR}")
            return InChromium(answers, runs, redraws, start, loads["explorer"], loads["empty_page"], pictures)
        finally:
            browser.close()


def _see_picture(page: Any) -> None:
    page.wait_for_function(_HAS_PICTURE, timeout=_TIMEOUT)


def _press(browser: Any, url: str, changes: int) -> tuple[list[float], list[float]]:
    """Press a key on the first slider: the times to the drawn picture, and the times of the runs that it shows."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(url, timeout=_TIMEOUT)
    _see_picture(page)
    page.wait_for_timeout(2 * _SETTLED)
    page.evaluate(_WATCH)
    slider = page.locator("input[type=range]").first
    runs = []
    for i in range(1, changes + 1):
        slider.press("ArrowRight")
        page.wait_for_function("(n) => window.drawn.length >= n", arg=i, timeout=_TIMEOUT)
        page.wait_for_timeout(_SETTLED)
        table = page.locator("table")
        times = re.findall(r"(\d+) ms", table.last.inner_text()) if table.count() else ["0"]
        runs.append(1e-3 * float(times[-1]))
    drawn = [1e-3 * t for t in page.evaluate("() => window.drawn")]
    page.close()
    return drawn[:changes], runs


def _load(browser: Any, url: str) -> float:
    """Seconds from the address to the drawn page, in a browser without a cache."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    began = time.perf_counter()
    page.goto(url, timeout=_TIMEOUT)
    if "explorer" in url:
        _see_picture(page)
    else:
        page.locator(".bk-Canvas").last.wait_for(timeout=_TIMEOUT)
    seconds = time.perf_counter() - began
    context.close()
    return seconds


def _play(browser: Any, url: str) -> list[float]:
    """Seconds between the pictures of the second play; the first one brings the layers of all levels."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(url, timeout=_TIMEOUT)
    _see_picture(page)
    page.wait_for_timeout(2 * _SETTLED)
    page.evaluate(_PLAY)
    page.wait_for_timeout(2 * _SETTLED)
    times = page.evaluate(_PLAY)
    page.close()
    return [1e-3 * float(seconds) for seconds in np.diff(times)]
