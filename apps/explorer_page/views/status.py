"""The line under the plots: whether something is being computed, what to look at, and what the colours mean."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import numpy as np
import panel as pn

from toyguide_apps.explorer_page import palette
from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.layers.curvature import CURVATURE_LEVELS, ERROR_LEVELS
from toyguide_apps.explorer_page.layers.errors import RATIO_LEVELS
from toyguide_apps.explorer_page.layers.twist import CURL_LEVELS, DIVERGENCE_LEVELS

__all__ = ["Status"]

_STYLE = """
    :host { font-size: 12px; min-height: 20px; }
    .line { display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: center; }
    .chip { display: inline-flex; align-items: center; gap: 5px; opacity: .9; }
    .swatch { width: 18px; height: 0; border-top: 3px solid; display: inline-block; }
    .dot { width: 8px; height: 8px; border-radius: 50%; display: inline-block; }
    .fill { width: 34px; height: 9px; display: inline-block; border-radius: 2px;
            border: 1px solid rgba(128,128,128,.4); }
    .sign { font-size: 15px; line-height: 1; }
    .steps { display: inline-flex; padding-bottom: 11px; margin-top: 2px; }
    .step { width: 30px; height: 9px; position: relative; border: 1px solid rgba(128,128,128,.4); border-left: none; }
    .step:first-child { border-left: 1px solid rgba(128,128,128,.4); }
    .step i { position: absolute; left: 15px; width: 30px; top: 9px; text-align: center; font-style: normal;
              font-size: 9px; }
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


_BACKGROUNDS: dict[str, Callable[[Picture], list[str]]] = {
    "ratio": lambda _: [_fill(palette.RATIO, "guide likelier … main likelier")],
    "regions": lambda picture: _regions(picture),
    "curvature": lambda p: [_steps(palette.CURVATURE, CURVATURE_LEVELS, f"top σ²λ ({p.request.source})")],
    "error-ratio": lambda p: _of_the_rule(
        p, palette.ERROR_RATIO[1:], RATIO_LEVELS, "length of the guided error / main's error"
    ),
    "curl": lambda p: _of_the_rule(p, palette.TWIST, CURL_LEVELS, "σ² curl of the guided score; 0 for a gradient"),
    "divergence": lambda p: _of_the_rule(
        p, palette.TWIST, DIVERGENCE_LEVELS, "σ² divergence of the guided score / dimension"
    ),
    "step-error": lambda p: [
        _steps(
            palette.ERRORS,
            ERROR_LEVELS,
            f"relative error of SFG's product along the top eigenvector at h = {p.request.product_step:g} "
            f"({p.request.source})",
        )
    ],
}


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
        shown = picture.scenes[-1]
        guide = request.guide[1]
        named = {"exact": "exact density", "main": f"density of {shown.main}", "guide": f"density of {guide}"}
        if request.bands in _BACKGROUNDS:
            chips += _BACKGROUNDS[request.bands](picture)
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
        if shown.saddles is not None:
            if len(shown.saddles.value):
                top = f"{shown.saddles.value.max():.2g}"
                chips.append(_fill(palette.SADDLE, f"saddle eigenvectors ({request.source}), σ²λ from 0 to {top}"))
            else:
                chips.append(_swatch(palette.SADDLE[0], "no saddle here: all eigenvalues are negative"))
        if "critical" in request.layers:
            chips += _critical(picture)
        if "samples" in request.layers:
            chips.append(_dot(palette.SAMPLE, "ends inside"))
            chips.append(_dot(palette.OUTLIER, "ends outside the 99 % region"))
        if request.bands != "none" or request.layers - {"region", "paths", "samples"}:
            chips.append(f"<span class='chip'>layers at σ = {request.sigma:.3g}</span>")
        look = f"<span class='look'>{escape(self._look)}</span>" if self._look else ""
        self._legend.object = f"<div class='line'>{''.join(chips)}{look}</div>"

    def __panel__(self) -> pn.viewable.Viewable:
        return self._legend


def _regions(picture: Picture) -> list[str]:
    named = {"mode": 0, "saddle (σ²λ > 0)": 1, "tail (outside 99 %)": 2}
    source = picture.request.source
    return [_block(palette.REGIONS[i], f"{text}" + (f", {source}" if i == 0 else "")) for text, i in named.items()]


def _of_the_rule(picture: Picture, colours: list[str], levels: tuple[float, ...], text: str) -> list[str]:
    """The key of a background that a rule may not have."""
    shown = picture.scenes[-1]
    if shown.empty:
        return [f"<span class='chip'>no background: {escape(shown.empty)}</span>"]
    return [_steps(colours, levels, text)]


def _critical(picture: Picture) -> list[str]:
    found = picture.scenes[-1].critical
    if found is None:
        return ["<span class='chip'>searching for critical points …</span>"]
    dim = picture.request.runs[-1].data.dim
    chips = []
    for index in np.unique(found.index):
        count = int((found.index == index).sum())
        if index == 0:
            chips.append(_sign("●", palette.MODE, f"{count} mode{'s' * (count > 1)}"))
        elif index == 1:
            chips.append(_sign("◆", palette.UNSTABLE, f"{count} saddle{'s' * (count > 1)} (index 1)"))
        else:
            kind = ("minimum" if count == 1 else "minima") if index == dim else "saddles"[: 6 + (count > 1)]
            chips.append(_sign("■", palette.MINIMUM, f"{count} {kind} (index {index})"))
    beyond = f"; {found.beyond} more off the plane" if found.beyond else ""
    source = picture.request.source
    return [*chips, f"<span class='chip'>found by a short search ({source}{beyond})</span>"]


def _swatch(colour: str, text: str) -> str:
    return f"<span class='chip'><span class='swatch' style='border-color:{colour}'></span>{escape(text)}</span>"


def _dot(colour: str, text: str) -> str:
    return f"<span class='chip'><span class='dot' style='background:{colour}'></span>{escape(text)}</span>"


def _block(colour: str, text: str) -> str:
    return f"<span class='chip'><span class='fill' style='background:{colour};width:16px'></span>{escape(text)}</span>"


def _sign(sign: str, colour: str, text: str) -> str:
    return f"<span class='chip'><span class='sign' style='color:{colour}'>{sign}</span>{escape(text)}</span>"


def _steps(colours: list[str], levels: tuple[float, ...], text: str) -> str:
    """A key of bands with the numbers at their borders."""
    cells = "".join(
        f"<span class='step' style='background:{c}'><i>{'' if i == len(levels) else f'{levels[i]:g}'}</i></span>"
        for i, c in enumerate(colours)
    )
    return f"<span class='chip'><span class='steps'>{cells}</span>{escape(text)}</span>"


def _fill(colours: list[str], text: str) -> str:
    gradient = ", ".join(colours)
    return (
        f"<span class='chip'><span class='fill' style='background:linear-gradient(90deg,{gradient})'></span>"
        f"{escape(text)}</span>"
    )
