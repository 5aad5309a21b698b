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

__all__ = ["Panel", "Request", "nearest", "panel_names", "schedule"]


@dataclass(frozen=True)
class Panel:
    """One plot: a rule, and where its experiment differs from the shared settings.

    Attributes:
        rule: The guidance rule, with its parameters.
        own: Its own settings by name: ``label``, ``sampler``, ``steps``, ``n``, ``seed``, ``interval`` (two noise
            levels, or None for everywhere) and ``fields`` (references by role).
    """

    rule: Rule
    own: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One picture, fully described.

    Attributes:
        runs: The panels' experiments, from left to right; all of one dataset.
        sigma: The noise level of the layers, positive; the first one if no layer depends on it.
        at_end: Whether the scrubber is at sigma = 0, so that ``sigma`` is the last level above it.
        bands: What fills the background.
        layers: What else is drawn.
        source: Where score, ratio and curvature come from, ``learned`` or ``exact``.
        window: Left, bottom, right and top.
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
    sample: int | None = None


def panel_names(count: int) -> tuple[str, ...]:
    """What presets and links call the panels: ``ref`` is what the others are compared with."""
    return ("rule",) if count == 1 else ("ref", "rule", *(f"rule{i}" for i in range(3, count + 1)))


def nearest(levels: Sequence[float], sigma: float) -> int:
    """The index of the noise level nearest to ``sigma`` on a logarithmic scale; 0 is nearest to 0 alone."""
    if sigma <= 0:
        return len(levels) - 1
    positive = [k for k, level in enumerate(levels) if level > 0]
    return min(positive, key=lambda k: abs(math.log(levels[k] / sigma)))


@lru_cache(maxsize=64)
def schedule(dataset: str, steps: int) -> tuple[float, ...]:
    """The noise levels that the scrubber stops at: those of a run with the shared settings."""
    return tuple(Experiment(dataset, steps=steps).levels().tolist())
