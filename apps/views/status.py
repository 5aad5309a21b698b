"""The line under the plots: whether something is being computed, what to look at, and what the colours mean."""

from __future__ import annotations

from html import escape

import panel as pn

from toyguide_apps import palette
from toyguide_apps.compute import Picture

__all__ = ["Status"]

_STYLE = """
    :host { font-size: 12px; min-height: 20px; }
    .line { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: center; }
    .chip { display: inline-flex; align-items: center; gap: 5px; opacity: .9; }
    .swatch { width: 18px; height: 0; border-top: 3px solid; display: inline-block; }
    .dot { width: 8px; height: 8px; border-radius: 50%; display: inline-block; }
    .fill { width: 34px; height: 9px; display: inline-block; border-radius: 2px;
            border: 1px solid rgba(128,128,128,.4); }
    .look { flex-basis: 100%; opacity: .9; }
"""
_SPIN = """
    :host { position: fixed; top: 14px; right: 120px; z-index: 1300; }
    .busy { opacity: var(--toyguide-busy, 0); display: inline-flex;
            gap: 7px; align-items: center; font-size: 12.5px; color: white; }
    .ring { width: 13px; height: 13px; border-radius: 50%; border: 2px solid rgba(255,255,255,.35);
            border-top-color: white; animation: turn .8s linear infinite; }
    @keyframes turn { to { transform: rotate(360deg); } }
    @media (prefers-reduced-motion: reduce) { .ring { animation: none; } }
"""


class Status(pn.viewable.Viewer):
    """A legend of what is drawn, a sentence about it, and the busy sign."""

    def __init__(self) -> None:
        super().__init__()
        self._look = ""
        self._legend = pn.pane.HTML("", stylesheets=[_STYLE], sizing_mode="stretch_width", margin=(0, 10))
        self.sign = pn.pane.HTML(
            "<span class='busy' role='status'><span class='ring'></span>computing</span>",
            stylesheets=[_SPIN],
            margin=0,
        )
        self._last: Picture | None = None

    def say(self, look: str) -> None:
        """A sentence about what to see."""
        self._look = look
        if self._last is not None:
            self.show(self._last)

    def show(self, picture: Picture) -> None:
        """The legend of a picture."""
        self._last = picture
        request = picture.request
        chips = []
        main = request.right.references()["main"]
        named = {"exact": "exact density", "main": f"density of {main}", "guide": f"density of {picture.guide}"}
        if request.bands == "ratio":
            chips.append(_fill(palette.RATIO, "guide likelier … main likelier"))
        elif request.bands != "none":
            chips.append(_fill(palette.BANDS[request.bands], named[request.bands]))
        for key, text in named.items():
            if f"{key}-lines" in request.layers:
                chips.append(_swatch(palette.DENSITY[key], f"{text}: 50, 80, 99 %"))
        for key, colour, text in (
            ("region", palette.REGION, "exact 99 % region"),
            ("boundary", palette.BOUNDARY, "class boundary"),
            ("score", palette.ARROW, f"score ({request.source})"),
            ("guidance", palette.GUIDANCE, "what the rule adds"),
        ):
            if key in request.layers:
                chips.append(_swatch(colour, text))
        if picture.saddles is not None:
            if len(picture.saddles.value):
                top = f"{picture.saddles.value.max():.2g}"
                chips.append(_fill(palette.SADDLE, f"saddle eigenvectors ({request.source}), σ²λ from 0 to {top}"))
            else:
                chips.append(_swatch(palette.SADDLE[0], "no saddle here: all eigenvalues are negative"))
        if "samples" in request.layers:
            chips.append(_dot(palette.SAMPLE, "ends inside"))
            chips.append(_dot(palette.OUTLIER, "ends outside the 99 % region"))
        if request.bands != "none" or request.layers - {"region", "paths", "samples"}:
            chips.append(f"<span class='chip'>layers at σ = {picture.sigma:.3g}</span>")
        look = f"<span class='look'>{escape(self._look)}</span>" if self._look else ""
        self._legend.object = f"<div class='line'>{''.join(chips)}{look}</div>"

    def __panel__(self) -> pn.viewable.Viewable:
        return self._legend


def _swatch(colour: str, text: str) -> str:
    return f"<span class='chip'><span class='swatch' style='border-color:{colour}'></span>{escape(text)}</span>"


def _dot(colour: str, text: str) -> str:
    return f"<span class='chip'><span class='dot' style='background:{colour}'></span>{escape(text)}</span>"


def _fill(colours: list[str], text: str) -> str:
    gradient = ", ".join(colours)
    return (
        f"<span class='chip'><span class='fill' style='background:linear-gradient(90deg,{gradient})'></span>"
        f"{escape(text)}</span>"
    )
