"""The layers of the plots: background, lines, arrows and critical points, shared by the panels that have the same ones.

Panels of one class and main field are drawn from the same data sources, which are sent once. A panel with layers of its
own gets further sources, made when they are first needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, GlyphRenderer, Image, Line, LinearColorMapper, Scatter, Segment, Text
from bokeh.plotting import figure

from toyguide_apps.explorer_page import palette
from toyguide_apps.explorer_page.layers.critical import Critical
from toyguide_apps.explorer_page.layers.densities import Arrows, Curves
from toyguide_apps.explorer_page.panels import Request
from toyguide_apps.explorer_page.scene import Scene
from toyguide_apps.explorer_page.views.glyphs import draw

__all__ = ["ENDS", "NONE", "STROKES", "Underlay", "halo"]

NONE = np.zeros(0, np.float32)
STROKES = ("x0", "y0", "x1", "y1")
ENDS: dict[str, Any] = {name: name for name in STROKES}
"""The columns of a segment, each called what the glyph calls it."""
_CURVES = {
    "other-regions": dict(line_color=palette.REGION, line_width=1.0, line_alpha=0.45),
    "region": dict(line_color=palette.REGION, line_width=1.3),
    "exact-lines": dict(line_color=palette.DENSITY["exact"], line_width=1.4),
    "main-lines": dict(line_color=palette.DENSITY["main"], line_width=1.4),
    "guide-lines": dict(line_color=palette.DENSITY["guide"], line_width=1.4),
    "boundary": dict(line_color=palette.BOUNDARY, line_width=2.2, line_dash=[6, 3]),
}
halo: dict[str, Any] = dict(line_color=palette.HALO, line_alpha=0.8)
"""The light line below each dark one: legible on any background, in the light and in the dark theme."""


class _Sources:
    """The data of one scene.

    Args:
        suffix: Of the sources' names; empty for the first scene's.
    """

    def __init__(self, suffix: str) -> None:
        def source(name: str, *columns: str, **others: Any) -> ColumnDataSource:
            return ColumnDataSource({**dict.fromkeys(columns, NONE), **others}, name=name + suffix)

        self.image = source("image", image=[], x=[], y=[], dw=[], dh=[])
        self.curves = {k: source(k, "x", "y") for k in _CURVES}
        self.score = source("score", *STROKES)
        self.saddles = source("saddles", *STROKES, "value")
        self.modes = source("modes", "x", "y")
        self.passes = source("passes", "x", "y")
        self.others = source("minima", "x", "y", text=[])
        self.unstable = source("unstable", *STROKES)
        self.saddle_colours = LinearColorMapper(palette=palette.SADDLE, low=0, high=1)
        self._shown: dict[str, Any] = {}

    def show(self, scene: Scene, request: Request, colours: LinearColorMapper) -> None:
        """Draw a scene; what has not changed is not sent again."""
        if self._fresh("image", scene.image):
            self._show_image(scene.image, request, colours)
        for name, source in self.curves.items():
            self._show_strokes(source, scene.curves.get(name))
        self._show_strokes(self.score, scene.score)
        self._show_strokes(self.saddles, scene.saddles)
        if scene.saddles is not None and len(scene.saddles.value):
            self.saddle_colours.high = float(np.quantile(scene.saddles.value, 0.98))
        if self._fresh("critical", scene.critical):
            self._show_critical(scene.critical)

    def _show_image(self, image: np.ndarray | None, request: Request, colours: LinearColorMapper) -> None:
        if image is None:
            self.image.data = dict(image=[], x=[], y=[], dw=[], dh=[])
            return
        left, bottom, right, top = request.window
        # Pixels are centred on the grid's points, so the image reaches half a pixel beyond the window.
        dx, dy = (right - left) / (image.shape[1] - 1), (top - bottom) / (image.shape[0] - 1)
        shades = palette.BACKGROUNDS[request.bands]
        colours.update(palette=shades, low=-0.5, high=len(shades) - 0.5)
        self.image.data = dict(
            image=[image], x=[left - dx / 2], y=[bottom - dy / 2], dw=[right - left + dx], dh=[top - bottom + dy]
        )

    def _show_strokes(self, source: ColumnDataSource, strokes: Arrows | Curves | None) -> None:
        if self._fresh(source.name, strokes):
            source.data = {c: NONE if strokes is None else getattr(strokes, c) for c in source.data}

    def _show_critical(self, found: Critical | None) -> None:
        if found is None:
            self.modes.data = self.passes.data = dict(x=NONE, y=NONE)
            self.others.data = dict(x=NONE, y=NONE, text=[])
            self.unstable.data = dict.fromkeys(STROKES, NONE)
            return
        for source, which in ((self.modes, found.index == 0), (self.passes, found.index == 1)):
            source.data = dict(x=found.x[which], y=found.y[which])
        more = found.index > 1
        self.others.data = dict(x=found.x[more], y=found.y[more], text=[str(i) for i in found.index[more]])
        self.unstable.data = dict(zip(STROKES, found.strokes, strict=True))

    def _fresh(self, name: str, value: Any) -> bool:
        """Whether this is another object than the last one shown under the name."""
        fresh = self._shown.get(name, self) is not value
        self._shown[name] = value
        return fresh


class Underlay:
    """The layers of all plots. A figure's glyphs are added in three parts, with the samples and paths between them."""

    def __init__(self) -> None:
        self._sources = [_Sources("")]
        self._colours = LinearColorMapper(palette=palette.BANDS["exact"], low=-0.5, high=7.5)
        self._glyphs: dict[figure, list[dict[str, list[GlyphRenderer]]]] = {}

    def draw_on(self, f: figure, part: str) -> None:
        """Add the glyphs of a part, ``background``, ``arrows`` or ``critical``, to a figure."""
        scenes = self._glyphs.setdefault(f, [{}])
        scenes[0][part] = self._make(f, part, self._sources[0])

    def show(self, scenes: tuple[Scene, ...], request: Request) -> None:
        """Draw each figure's scene."""
        distinct = list(dict.fromkeys(scenes))
        for index, scene in enumerate(distinct):
            if index == len(self._sources):
                self._add_sources()
            self._sources[index].show(scene, request, self._colours)
        if len(self._sources) > 1:
            for parts, scene in zip(self._glyphs.values(), scenes, strict=True):
                for index, part in enumerate(parts):
                    for glyph in (glyph for glyphs in part.values() for glyph in glyphs):
                        glyph.visible = index == distinct.index(scene)

    def _add_sources(self) -> None:
        """Glyphs of one more scene in each figure, each part right above the same part of the first scene."""
        self._sources.append(_Sources(f"-{len(self._sources) + 1}"))
        for f, scenes in self._glyphs.items():
            before = list(f.renderers)
            scenes.append({part: self._make(f, part, self._sources[-1]) for part in scenes[0]})
            for part, glyphs in scenes[-1].items():
                at = before.index(scenes[0][part][-1]) + 1
                before[at:at] = glyphs
            f.renderers = before

    def _make(self, f: figure, part: str, sources: _Sources) -> list[GlyphRenderer]:
        return {"background": self._background, "arrows": self._arrows, "critical": self._critical}[part](f, sources)

    def _background(self, f: figure, sources: _Sources) -> list[GlyphRenderer]:
        image = draw(f, sources.image, Image(image="image", x="x", y="y", dw="dw", dh="dh", color_mapper=self._colours))
        return [image, *(draw(f, sources.curves[name], Line(x="x", y="y", **style)) for name, style in _CURVES.items())]

    def _arrows(self, f: figure, sources: _Sources) -> list[GlyphRenderer]:
        colour = dict(field="value", transform=sources.saddle_colours)
        return [
            draw(f, sources.score, Segment(**ENDS, line_color=palette.ARROW, line_width=1.1)),
            draw(f, sources.saddles, Segment(**ENDS, line_color=colour, line_width=2.0)),
        ]

    def _critical(self, f: figure, sources: _Sources) -> list[GlyphRenderer]:
        outlined: dict[str, Any] = dict(line_color=palette.HALO, line_width=1.2)
        diamond: dict[str, Any] = dict(x="x", y="y", size=11, marker="diamond")
        square: dict[str, Any] = dict(x="x", y="y", size=10, marker="square")
        small: dict[str, Any] = dict(text_font_size="8px", text_align="center", text_baseline="middle")
        return [
            draw(f, sources.unstable, Segment(**ENDS, line_width=5.0, line_cap="round", **halo)),
            draw(f, sources.unstable, Segment(**ENDS, line_width=2.6, line_color=palette.UNSTABLE)),
            draw(f, sources.modes, Scatter(x="x", y="y", size=9, fill_color=palette.MODE, **outlined)),
            draw(f, sources.passes, Scatter(**diamond, fill_color=palette.UNSTABLE, **outlined)),
            draw(f, sources.others, Scatter(**square, fill_color=palette.MINIMUM, **outlined)),
            draw(f, sources.others, Text(x="x", y="y", text="text", text_color="white", **small)),
        ]
