"""The explorer's names for the colours of :mod:`toyguide.palette`, and the bands of its backgrounds."""

from __future__ import annotations

from toyguide.palette import LIGHT, bands, two_sided

__all__ = [
    "ARROW",
    "BACKGROUNDS",
    "BANDS",
    "BOUNDARY",
    "CURVATURE",
    "DENSITY",
    "ERRORS",
    "ERROR_RATIO",
    "GUIDANCE",
    "HALO",
    "MINIMUM",
    "MODE",
    "OUTLIER",
    "PANELS",
    "RATIO",
    "REGION",
    "REGIONS",
    "SADDLE",
    "SAMPLE",
    "TERMS",
    "UNSTABLE",
    "WAY",
]

SAMPLE = LIGHT.sample
OUTLIER = LIGHT.outlier
REGION = LIGHT.region
BOUNDARY = LIGHT.boundary
ARROW = LIGHT.score
GUIDANCE = LIGHT.guidance

DENSITY = dict(LIGHT.density)
BANDS = {name: bands(colour, 8) for name, colour in DENSITY.items()}
RATIO = two_sided(LIGHT.maps["ratio"], 5)
"""Guide likelier … main likelier."""

SADDLE = bands(LIGHT.upward, 10, 1.0)[3:]
"""Upward curvature from weak to strong."""

CURVATURE = two_sided(LIGHT.maps["curvature"], 5)
"""Downward in all directions … upward in one."""
ERRORS = bands(LIGHT.error, 8)
_SHORTER, _LONGER = (bands(end, 5) for end in LIGHT.maps["error-ratio"])
ERROR_RATIO = ["#00000000", *_SHORTER[:0:-1], f"{LIGHT.region}2e", *_LONGER[1:]]
"""Far from the data; then from a shorter error by as long a one (grey) to a longer one."""
REGIONS = [f"{LIGHT.mode}66", f"{LIGHT.upward}70", f"{LIGHT.region}30"]
"""Mode, saddle and tail."""
BACKGROUNDS = {
    **BANDS,
    "ratio": RATIO,
    "regions": REGIONS,
    "curvature": CURVATURE,
    "step-error": ERRORS,
    "error-ratio": ERROR_RATIO,
}
"""The colours of each background's bands."""

HALO = LIGHT.halo
MODE = LIGHT.mode
UNSTABLE = LIGHT.upward
MINIMUM = LIGHT.minimum
WAY = LIGHT.sample
"""The inspected point and the trajectory from there."""
TERMS = {
    "main": LIGHT.density["main"],
    "guide": LIGHT.density["guide"],
    "push": GUIDANCE,
    "guided": LIGHT.sample,
    "up": UNSTABLE,
    "down": REGION,
}
"""A rule's terms at the inspected point, and the upward and downward eigenvectors there."""
PANELS = ("#0072b2", "#d55e00", "#009e73", "#a4508b")
"""The panels' curves, from the first panel on."""
