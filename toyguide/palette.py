"""The colours of the explorer and of the figures, each with one meaning, on a light and on a dark ground.

Samples are drawn in ink with a halo, so that they stand out from whatever lies beneath; outliers differ in hue and in
shape (triangles). Filled backgrounds are one hue, or two, of rising opacity, so that the ground shows through.
`tests/test_palette.py` holds what is seen together apart, with normal vision and with three colour deficiencies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["BAND_OPACITY", "DARK", "DASHES", "LIGHT", "PATH_OPACITY", "SERIES", "Theme", "bands", "two_sided"]

BAND_OPACITY = 0.55
"""Opacity of the strongest band of a background."""
PATH_OPACITY = 0.3
"""Opacity of a trajectory among many."""
DASHES: tuple[tuple[int, ...], ...] = ((), (7, 3), (2, 2), (8, 3, 2, 3))
"""The dash patterns of the curves of panels A to D, in line lengths and gaps; the first is solid."""


SERIES = ("#0072b2", "#d55e00", "#009e73", "#b3458a", "#e69f00", "#56b4e9", "#22262b")
"""The colours of a chart's series, in order of appearance."""


@dataclass(frozen=True)
class Theme:
    """The colours on one ground, each as ``#rrggbb``.

    Attributes:
        ground: What everything is drawn on.
        ink: Text, and what must be read first.
        quiet: Secondary text.
        frame: Frames, grids and ticks.
        sample: Samples, the inspected point and its trajectory.
        outlier: Samples outside the exact 99 % region.
        halo: Around every mark.
        path: Trajectories.
        density: Densities and lines of the ``exact``, the ``main`` and the ``guide`` field.
        region: The outlines of exact regions.
        boundary: Between classes.
        score: Score arrows.
        guidance: What a rule adds.
        upward: Upward-curving directions, and the saddle points where there are some.
        mode: Modes.
        minimum: Minima and other critical points.
        error: The length of an error.
        maps: The two ends of each two-sided background, low and high: ``ratio`` (guide likelier, main likelier),
            ``error-ratio`` (a shorter, a longer error), ``curvature`` (downward in all directions, upward in one),
            ``curl`` (clockwise, anticlockwise) and ``divergence`` (sink, source).
        panels: The curves and titles of panels A, B, C and D.
    """

    ground: str
    ink: str
    quiet: str
    frame: str
    sample: str
    outlier: str
    halo: str
    path: str
    density: Mapping[str, str]
    region: str
    boundary: str
    score: str
    guidance: str
    upward: str
    mode: str
    minimum: str
    error: str
    maps: Mapping[str, tuple[str, str]]
    panels: tuple[str, str, str, str]


LIGHT = Theme(
    ground="#ffffff",
    ink="#1a1f26",
    quiet="#59626e",
    frame="#c3c9d1",
    sample="#14181f",
    outlier="#b0040a",
    halo="#ffffff",
    path="#4a5361",
    density={"exact": "#af8000", "main": "#1f956b", "guide": "#9952d3"},
    region="#7c848f",
    boundary="#548b43",
    score="#586e88",
    guidance="#3a2cb5",
    upward="#c545be",
    mode="#0c4f76",
    minimum="#56524e",
    error="#1c8d9d",
    maps={
        "ratio": ("#864819", "#357de4"),
        "error-ratio": ("#0f8e84", "#d43819"),
        "curvature": ("#5f449e", "#c66608"),
        "curl": ("#6a9805", "#9f2d98"),
        "divergence": ("#347ca0", "#cc7f04"),
    },
    panels=("#125fd3", "#942e7b", "#047028", "#ce525e"),
)

DARK = Theme(
    ground="#14181f",
    ink="#e9edf2",
    quiet="#a3adb9",
    frame="#3c4550",
    sample="#f6f8fa",
    outlier="#e68902",
    halo="#0b0e13",
    path="#aab4c0",
    density={"exact": "#e3d98f", "main": "#0fb086", "guide": "#bc83f1"},
    region="#8d96a1",
    boundary="#88d073",
    score="#97b7da",
    guidance="#8286f5",
    upward="#de4477",
    mode="#4fc4de",
    minimum="#b3aca5",
    error="#2ebabe",
    maps={
        "ratio": ("#ca8c5a", "#45affc"),
        "error-ratio": ("#5fd4b7", "#f2676a"),
        "curvature": ("#9b8bd2", "#fca454"),
        "curl": ("#94c43a", "#df76d6"),
        "divergence": ("#4393bb", "#e6ba4c"),
    },
    panels=("#789ff2", "#d16ca1", "#2adfdf", "#fbb259"),
)


def bands(colour: str, count: int, strongest: float = BAND_OPACITY) -> list[str]:
    """``count`` colours ``#rrggbbaa`` of rising opacity; the first, transparent, is what lies outside all bands."""
    return [f"{colour}{round(255 * strongest * i / (count - 1)):02x}" for i in range(count)]


def two_sided(ends: tuple[str, str], count: int, strongest: float = BAND_OPACITY) -> list[str]:
    """``2 count - 1`` colours ``#rrggbbaa`` from the low end over nothing to the high end."""
    low, high = (bands(end, count, strongest) for end in ends)
    return [*low[:0:-1], *high]
