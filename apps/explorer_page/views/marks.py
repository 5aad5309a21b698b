"""What is marked on the plots: critical points, the inspected point with its arrows, and the way down from it."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, LinearColorMapper
from bokeh.plotting import figure

from toyguide_apps.explorer_page import palette
from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.layers.point_arrows import KINDS

__all__ = ["Marks"]

_NONE = np.zeros(0, np.float32)
_SIDES = ("left", "right")
_HALO = dict(line_color=palette.HALO, line_alpha=0.8)


class Marks:
    """The sources and glyphs of both plots' marks. Critical points and the point itself are shared by the two."""

    def __init__(self) -> None:
        strokes = dict(x0=_NONE, y0=_NONE, x1=_NONE, y1=_NONE)
        self._modes = ColumnDataSource(dict(x=_NONE, y=_NONE), name="modes")
        self._saddles = ColumnDataSource(dict(x=_NONE, y=_NONE), name="passes")
        self._others = ColumnDataSource(dict(x=_NONE, y=_NONE, text=[]), name="minima")
        self._unstable = ColumnDataSource(dict(strokes), name="unstable")
        self.point = ColumnDataSource(dict(x=_NONE, y=_NONE), name="point")
        self._arrows = {s: ColumnDataSource(dict(strokes, kind=_NONE), name=f"{s}-arrows") for s in _SIDES}
        self._names = {
            s: ColumnDataSource(dict(x=_NONE, y=_NONE, text=[], kind=_NONE), name=f"{s}-names") for s in _SIDES
        }
        self._ways = {s: ColumnDataSource(dict(x=_NONE, y=_NONE), name=f"{s}-way") for s in _SIDES}
        self._ends = {s: ColumnDataSource(dict(x=_NONE, y=_NONE), name=f"{s}-end") for s in _SIDES}
        self._shown: dict[str, Any] = {}

    def draw_on(self, f: figure, side: str) -> None:
        """Add the glyphs to a side's plot."""
        ends = ("x0", "y0", "x1", "y1")
        # Each line twice, light below dark: legible on any background, in the light and in the dark theme.
        f.segment(*ends, source=self._unstable, line_width=5.0, line_cap="round", **_HALO)
        f.segment(*ends, source=self._unstable, line_width=2.6, line_color=palette.UNSTABLE)
        outlined = dict(line_color=palette.HALO, line_width=1.2)
        f.scatter("x", "y", source=self._modes, size=9, fill_color=palette.MODE, **outlined)
        f.scatter("x", "y", source=self._saddles, size=11, marker="diamond", fill_color=palette.UNSTABLE, **outlined)
        f.scatter("x", "y", source=self._others, size=10, marker="square", fill_color=palette.MINIMUM, **outlined)
        small = dict(text_font_size="8px", text_align="center", text_baseline="middle", text_color="white")
        f.text("x", "y", text="text", source=self._others, **small)

        kinds = LinearColorMapper(palette=[palette.TERMS[k] for k in KINDS], low=-0.5, high=len(KINDS) - 0.5)
        colour = dict(field="kind", transform=kinds)
        f.segment(*ends, source=self._arrows[side], line_width=4.5, line_cap="round", **_HALO)
        f.segment(*ends, source=self._arrows[side], line_width=2.2, line_color=colour, line_cap="round")
        f.line("x", "y", source=self._ways[side], line_width=4.5, **_HALO)
        f.line("x", "y", source=self._ways[side], line_width=1.8, line_color=palette.WAY)
        f.scatter("x", "y", source=self._ends[side], size=7, fill_color=palette.WAY, **outlined)
        f.scatter("x", "y", source=self.point, size=10, fill_color=None, line_width=4.0, **_HALO)
        f.scatter("x", "y", source=self.point, size=10, fill_color=None, line_width=1.8, line_color=palette.WAY)
        f.text(
            "x",
            "y",
            text="text",
            source=self._names[side],
            text_color=colour,
            text_font_size="12px",
            text_font_style="bold",
            text_align="center",
            text_baseline="middle",
            background_fill_color=palette.HALO,
            background_fill_alpha=0.78,
            padding=1,
            border_radius=3,
        )

    def show(self, picture: Picture) -> None:
        """Mark what a picture holds; what has not changed is not sent again."""
        if self._fresh("critical", picture.critical):
            self._show_critical(picture)
        seen = picture.inspection
        if self._fresh("inspection", seen):
            u, v = ([c] for c in seen.uv) if seen else ([], [])
            self.point.data = dict(x=np.array(u, np.float32), y=np.array(v, np.float32))
        for i, side in enumerate(_SIDES):
            terms = (seen.left, seen.right)[i] if seen else None
            if self._fresh(f"{side}-way", terms):
                path = terms.path if terms else np.zeros((0, 2), np.float32)
                self._ways[side].data = dict(x=path[:, 0].copy(), y=path[:, 1].copy())
                self._ends[side].data = dict(x=path[-1:, 0].copy(), y=path[-1:, 1].copy())
            drawing = picture.terms[i] if picture.terms else None
            if self._fresh(f"{side}-arrows", drawing):
                self._show_arrows(side, drawing)

    def _show_arrows(self, side: str, drawing: Any) -> None:
        if drawing is None:
            self._arrows[side].data = dict(x0=_NONE, y0=_NONE, x1=_NONE, y1=_NONE, kind=_NONE)
            self._names[side].data = dict(x=_NONE, y=_NONE, text=[], kind=_NONE)
            return
        self._arrows[side].data = dict(zip(("x0", "y0", "x1", "y1", "kind"), drawing.strokes, strict=True))
        self._names[side].data = dict(x=drawing.at[0], y=drawing.at[1], text=drawing.names, kind=drawing.kinds)

    def _show_critical(self, picture: Picture) -> None:
        found = picture.critical
        if found is None:
            nothing = dict(x=_NONE, y=_NONE)
            self._modes.data, self._saddles.data = dict(nothing), dict(nothing)
            self._others.data = dict(nothing, text=[])
            self._unstable.data = dict(x0=_NONE, y0=_NONE, x1=_NONE, y1=_NONE)
            return
        for source, which in ((self._modes, found.index == 0), (self._saddles, found.index == 1)):
            source.data = dict(x=found.x[which], y=found.y[which])
        more = found.index > 1
        self._others.data = dict(x=found.x[more], y=found.y[more], text=[str(i) for i in found.index[more]])
        self._unstable.data = dict(zip(("x0", "y0", "x1", "y1"), found.strokes, strict=True))

    def _fresh(self, name: str, value: Any) -> bool:
        """Whether this is not the object that was last shown under the name."""
        fresh = self._shown.get(name) is not value
        self._shown[name] = value
        return fresh
