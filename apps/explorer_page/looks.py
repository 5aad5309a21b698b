"""The stage's colours in both themes, as data for the browser."""

from __future__ import annotations

from typing import Any

from toyguide.palette import DARK, DASHES, LIGHT, Theme, bands, two_sided
from toyguide_apps.explorer_page.layers.point_arrows import KINDS
from toyguide_apps.explorer_page.palette import IN_THE_DARK

__all__ = ["looks"]

_STEPS = 8  # bands of a density
_SIDE = 5  # bands on each side of a two-sided map, with the middle


def looks() -> dict[str, Any]:
    """The colours of the light and of the dark theme, and what each of the light one's is in the dark."""
    return {"light": _look(LIGHT), "dark": _look(DARK), "swap": IN_THE_DARK}


def backgrounds(theme: Theme) -> dict[str, list[str]]:
    """The colours of each background's bands, in the order of their numbers in an image."""
    shorter, longer = (bands(end, _SIDE) for end in theme.maps["error-ratio"])
    sided = {name: two_sided(theme.maps[name], _SIDE) for name in ("ratio", "curvature", "curl", "divergence")}
    return {
        **{name: bands(colour, _STEPS) for name, colour in theme.density.items()},
        **sided,
        # The first is far from the data; the middle an error as long as main's.
        "error-ratio": ["#00000000", *shorter[:0:-1], f"{theme.region}2e", *longer[1:]],
        "regions": [f"{theme.mode}66", f"{theme.upward}70", f"{theme.region}30"],
        "step-error": bands(theme.error, _STEPS),
        "target": bands(theme.guidance, _STEPS),
        "ideal-error": bands(theme.error, _STEPS),
    }


def _look(theme: Theme) -> dict[str, Any]:
    density = {f"{name}-lines": {"colour": colour, "width": 1.5} for name, colour in theme.density.items()}
    terms = {
        "main": theme.density["main"],
        "guide": theme.density["guide"],
        "push": theme.guidance,
        "guided": theme.ink,
        "up": theme.upward,
        "down": theme.quiet,
    }
    return {
        **{name: getattr(theme, name) for name in ("ground", "quiet", "frame", "sample", "outlier", "halo", "path")},
        **{name: getattr(theme, name) for name in ("score", "guidance")},
        "way": theme.ink,
        "moved": theme.path,
        "changed": theme.outlier,
        "unstable": theme.upward,
        "interval": f"{theme.panels[2]}30",
        "lines": {
            "other-regions": {"colour": theme.region, "width": 1.0, "alpha": 0.5},
            "region": {"colour": theme.region, "width": 1.3},
            **density,
            "boundary": {"colour": theme.boundary, "width": 2.2, "dash": [6, 3]},
        },
        "saddles": bands(theme.upward, 10, 1.0)[3:],
        "marks": {"modes": theme.mode, "passes": theme.upward, "others": theme.minimum},
        "terms": [terms[kind] for kind in KINDS],
        "bands": backgrounds(theme),
        "panels": list(theme.panels),
        "dashes": [list(dash) for dash in DASHES],
    }
