"""What is drawn: panels side by side, each with a run of its own, over layers at one noise level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from toyguide import Experiment
from toyguide.guidance import Rule
from toyguide_apps.explorer_page.planes import Anchors

__all__ = ["LETTERS", "Panel", "Request", "following", "nearest", "panel_names", "schedule"]

LETTERS = "ABCD"
"""What the panels are called on the page."""
_REACH = 2.6  # standard deviations of the noise that a window following it shows each way: 99 % along an axis


@dataclass(frozen=True)
class Panel:
    """One plot: a rule, and where its experiment differs from the shared settings.

    Attributes:
        rule: The guidance rule, with its parameters.
        own: Its own settings by name: ``label``, ``sampler``, ``steps``, ``n``, ``seed``, ``interval`` (two noise
            levels, or None for everywhere), ``schedule`` and ``fields`` (references by role).
    """

    rule: Rule
    own: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One picture, fully described.

    Attributes:
        runs: The panels' experiments, from left to right; all of one dataset.
        sigma: The noise level of the layers, positive; the first one if no layer depends on it.
        at_end: Whether the time line is at sigma = 0, so that ``sigma`` is the last level above it.
        bands: What fills the background.
        layers: What else is drawn.
        source: Where score, ratio and curvature come from, ``learned`` or ``exact``.
        window: Left, bottom, right and top of the layers at this noise level.
        still_window: The same of the layers that belong to the data, at sigma = 0.
        guide: Role and reference of the field that main is compared with.
        product_step: The finite-difference step whose error is shown; 0 when it is not shown.
        plane: The three points that the plane goes through; none for the dataset's own plane.
        point: The inspected point in the plane, if there is one.
        ends: The classes whose joining edge is drawn as a profile, if it is.
        errors: Whether what each rule does to the error is drawn over the noise levels.
        sample: The final sample that is followed through every run, if one is.
    """

    runs: tuple[Experiment, ...]
    sigma: float
    at_end: bool
    bands: str
    layers: frozenset[str]
    source: str
    window: tuple[float, float, float, float]
    guide: tuple[str, str]
    product_step: float = 0.0
    plane: Anchors = ()
    point: tuple[float, float] | None = None
    ends: tuple[str, str] | None = None
    errors: bool = False
    still_window: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    sample: int | None = None


def panel_names(count: int) -> tuple[str, ...]:
    """What presets and links call one to four panels: ``ref`` is what the others are compared with."""
    return ("rule",) if count == 1 else ("ref", "rule", *(f"rule{i}" for i in range(3, count + 1)))


def nearest(levels: Sequence[float], sigma: float) -> int:
    """The index of the noise level nearest to ``sigma`` on a logarithmic scale; 0 is nearest to 0 alone."""
    if sigma <= 0:
        return len(levels) - 1
    positive = [k for k, level in enumerate(levels) if level > 0]
    return min(positive, key=lambda k: abs(math.log(levels[k] / sigma)))


def following(
    window: tuple[float, float, float, float], home: tuple[float, float, float, float], sigma: float
) -> tuple[float, float, float, float]:
    """The window at a noise level, of a view that follows the noise: ``window`` at 0, wide enough for all at high ones.

    The half width is ``hypot(half, 2.6 sigma)``; the centre moves to that of the data as the window widens. The stage
    computes the same in the browser (``followed`` in ``stage/view.js``).

    Args:
        window: The window at sigma = 0.
        home: The plane's own window, whose centre is that of the data.
        sigma: The noise level.
    """
    left, bottom, right, top = window
    half = max(right - left, top - bottom) / 2
    wide = math.hypot(half, _REACH * sigma)
    scale, share = wide / half, 1 - half / wide
    u = (left + right) / 2 * (1 - share) + (home[0] + home[2]) / 2 * share
    v = (bottom + top) / 2 * (1 - share) + (home[1] + home[3]) / 2 * share
    w, h = (right - left) / 2 * scale, (top - bottom) / 2 * scale
    return u - w, v - h, u + w, v + h


@lru_cache(maxsize=64)
def schedule(dataset: str, steps: int) -> tuple[float, ...]:
    """The noise levels that the time line stops at: those of a run with the shared settings."""
    return tuple(Experiment(dataset, steps=steps).levels().tolist())
