"""The explorer's colours: colour-blind safe (after Okabe and Ito), and legible on a light and on a dark ground.

Bands are one hue of rising opacity, so the page's own background shows through the outermost.
"""

from __future__ import annotations

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
    "TWIST",
    "UNSTABLE",
    "WAY",
]

SAMPLE = "#1f77c9"  # blue
OUTLIER = "#d55e00"  # vermillion
REGION = "#8a8a8a"  # the exact 99 % region
BOUNDARY = "#cc79a7"  # between classes
ARROW = "#7f8c9b"  # scores
GUIDANCE = "#c2410c"  # what a rule adds

DENSITY = {"exact": "#e69f00", "main": "#009e73", "guide": "#b05cc6"}
"""One hue per field: exact orange, main green, guide purple."""


def _bands(colour: str, count: int, strongest: float) -> list[str]:
    """``count`` colours from transparent to ``strongest`` opacity; the first is what lies outside all bands."""
    return [f"{colour}{round(255 * strongest * i / (count - 1)):02x}" for i in range(count)]


BANDS = {name: _bands(colour, 8, 0.85) for name, colour in DENSITY.items()}
RATIO = [*_bands("#b2560d", 5, 0.8)[:0:-1], "#00000000", *_bands("#2166ac", 5, 0.8)[1:]]
"""Guide likelier (brown) … main likelier (blue)."""

SADDLE = ["#fde725", "#fdc527", "#f89441", "#e56b5d", "#cb4679", "#a82296", "#7d03a8"]
"""Upward curvature from weak to strong (plasma, without its darkest end)."""

CURVATURE = [*_bands("#542788", 5, 0.7)[:0:-1], "#00000000", *_bands("#b35806", 5, 0.9)[1:]]
"""Downward in all directions (purple) … upward in one (orange)."""
ERRORS = _bands("#0e9aa7", 8, 0.9)
ERROR_RATIO = ["#00000000", *_bands("#2166ac", 5, 0.7)[:0:-1], "#8a8a8a2e", *_bands("#b2560d", 5, 0.7)[1:]]
"""Far from the data; then from a shorter error (blue) by as long a one (grey) to a longer one (brown)."""
REGIONS = ["#009e7366", "#cc3d8f70", "#8a8a8a30"]
"""Mode, saddle and tail."""
TWIST = [*_bands("#00695c", 5, 0.75)[:0:-1], "#00000000", *_bands("#ad1457", 5, 0.75)[1:]]
"""Curl and divergence of the guided field: negative (teal) … positive (crimson)."""
BACKGROUNDS = {
    **BANDS,
    "ratio": RATIO,
    "regions": REGIONS,
    "curvature": CURVATURE,
    "step-error": ERRORS,
    "error-ratio": ERROR_RATIO,
    "curl": TWIST,
    "divergence": TWIST,
}
"""The colours of each background's bands."""

HALO = "#ffffff"
"""Around every mark, so that it stands out from whatever it lies on."""
MODE = "#00795a"
UNSTABLE = "#b02a7c"
MINIMUM = "#5a5a5a"
WAY = "#111111"
"""The inspected point and the trajectory from there."""
TERMS = {
    "main": "#00795a",
    "guide": "#8e3fa6",
    "push": GUIDANCE,
    "guided": "#1a5fa8",
    "up": UNSTABLE,
    "down": "#6b7280",
}
"""A rule's terms at the inspected point, and the upward and downward eigenvectors there."""
PANELS = ("#0072b2", "#d55e00", "#009e73", "#a4508b")
"""The panels' curves, from the first panel on."""
