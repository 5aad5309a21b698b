"""The colours of the curves and texts below the stage: those of the light theme, and what they are in the dark one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from toyguide.palette import DARK, LIGHT

__all__ = [
    *("DENSITY", "HALO", "IN_THE_DARK", "OUTLIER", "PANELS", "REGION", "REGIONS", "SAMPLE", "TERMS", "UNSTABLE"),
    "css",
]

SAMPLE = LIGHT.sample
OUTLIER = LIGHT.outlier
REGION = LIGHT.region
DENSITY = dict(LIGHT.density)
UNSTABLE = LIGHT.upward
HALO = LIGHT.halo
PANELS = LIGHT.panels
REGIONS = (LIGHT.mode, LIGHT.upward, LIGHT.region)
"""Mode, saddle and tail."""
TERMS = {
    "main": DENSITY["main"],
    "guide": DENSITY["guide"],
    "push": LIGHT.guidance,
    "guided": LIGHT.ink,
    "up": LIGHT.upward,
    "down": LIGHT.quiet,
}
"""A rule's terms at the inspected point, and the upward and downward eigenvectors there."""


def _flat(value: Any) -> list[str]:
    """All colours of a theme, in one order."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [colour for part in parts for colour in _flat(part)]


IN_THE_DARK = dict(zip(_flat(asdict(LIGHT)), _flat(asdict(DARK)), strict=True))
"""The dark theme's colour for each colour of the light one."""


def css(colour: str) -> str:
    """A light theme's colour for a style; the stage gives it its dark one when the theme changes."""
    return f"var(--toyguide-{colour.removeprefix('#')}, {colour})"
