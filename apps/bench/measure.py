"""How fast the explorer answers: a real server in a process of its own, and visitors who move a slider.

A visitor without a browser holds a session over the websocket, sets the slider as a browser does and waits until the
picture that belongs to it has arrived: the points of all trajectories and their title in one message. One visitor
presses keys; many at once drag. With a Chromium there, one more visitor presses keys in it; its times include the
drawing.
"""

from __future__ import annotations

import itertools
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import panel as pn

from toyguide_apps.bench.chromium import in_chromium
from toyguide_apps.bench.server import serving
from toyguide_apps.bench.visitor import Visitor, stale

__all__ = ["ExplorerFigures", "Spread", "measure_explorer"]

_LOOK = 0.1  # seconds that a visitor looks at a picture
_DRAG = 3  # values that a drag passes


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
        browser_answer_ratio: How many times the same stage redrawn an answer takes in Chromium, without its guided run.
        browser_load_s: From the address to the first picture in Chromium, in seconds; the median.
        browser_load_ratio: How many times an empty page of the same template that is.
        browser_picture_ms: From one drawn picture to the next while four panels of 2,048 samples play in Chromium, in
            milliseconds; the median of a play.
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
    browser_answer_ratio: float | None
    browser_load_s: float | None
    browser_load_ratio: float | None
    browser_picture_ms: float | None


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
    seen = in_chromium(changes)
    return ExplorerFigures(
        sessions=sessions,
        changes=changes,
        one=Spread.of([t for t in alone[0] if t is not None]),
        many=Spread.of([t for times, _ in together for t in times if t is not None]),
        errors=failures + missing,
        stale=sum(count for _, count in (alone, *together)),
        first_picture_s=first_picture,
        browser=None if seen is None else Spread.of(seen.answers),
        browser_first_picture_s=None if seen is None else seen.start_s,
        browser_answer_ratio=None if seen is None else seen.answer_ratio,
        browser_load_s=None if seen is None else float(np.median(seen.loads)),
        browser_load_ratio=None if seen is None else seen.load_ratio,
        browser_picture_ms=None if seen is None else 1e3 * float(np.median(seen.pictures)),
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
