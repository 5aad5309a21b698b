"""The inspected point on the plots, with its arrows and the trajectory from there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, Line, LinearColorMapper, Scatter, Segment, Text
from bokeh.plotting import figure

from toyguide_apps.explorer_page import palette
from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.layers.point_arrows import KINDS, Drawing
from toyguide_apps.explorer_page.views.glyphs import draw
from toyguide_apps.explorer_page.views.underlay import ENDS, NONE, STROKES, halo

__all__ = ["Marks"]


class Marks:
    """The sources and glyphs of the inspected point on all plots. The point itself is the same on each.

    Args:
        names: The prefix of each panel's models.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.point = ColumnDataSource(dict(x=NONE, y=NONE), name="point")
        self._arrows = [ColumnDataSource(dict.fromkeys((*STROKES, "kind"), NONE), name=f"{s}-arrows") for s in names]
        self._names = [ColumnDataSource(dict(x=NONE, y=NONE, text=[], kind=NONE), name=f"{s}-names") for s in names]
        self._ways = [ColumnDataSource(dict(x=NONE, y=NONE), name=f"{s}-way") for s in names]
        self._ends = [ColumnDataSource(dict(x=NONE, y=NONE), name=f"{s}-end") for s in names]
        self._shown: dict[str, Any] = {}

    def draw_on(self, f: figure, panel: int) -> None:
        """Add the glyphs to a panel's plot."""
        outlined = dict(line_color=palette.HALO, line_width=1.2)
        kinds = LinearColorMapper(palette=[palette.TERMS[k] for k in KINDS], low=-0.5, high=len(KINDS) - 0.5)
        colour = dict(field="kind", transform=kinds)
        draw(f, self._arrows[panel], Segment(**ENDS, line_width=4.5, line_cap="round", **halo))
        draw(f, self._arrows[panel], Segment(**ENDS, line_width=2.2, line_color=colour, line_cap="round"))
        draw(f, self._ways[panel], Line(x="x", y="y", line_width=4.5, **halo))
        draw(f, self._ways[panel], Line(x="x", y="y", line_width=1.8, line_color=palette.WAY))
        draw(f, self._ends[panel], Scatter(x="x", y="y", size=7, fill_color=palette.WAY, **outlined))
        draw(f, self.point, Scatter(x="x", y="y", size=10, fill_color=None, line_width=4.0, **halo))
        draw(f, self.point, Scatter(x="x", y="y", size=10, fill_color=None, line_width=1.8, line_color=palette.WAY))
        draw(
            f,
            self._names[panel],
            Text(
                x="x",
                y="y",
                text="text",
                text_color=colour,
                text_font_size="12px",
                text_font_style="bold",
                text_align="center",
                text_baseline="middle",
                background_fill_color=palette.HALO,
                background_fill_alpha=0.78,
                padding=1,
                border_radius=3,
            ),
        )

    def show(self, picture: Picture) -> None:
        """Mark what a picture holds; what has not changed is not sent again."""
        seen = picture.inspection
        if self._fresh("inspection", seen):
            u, v = ([c] for c in seen.uv) if seen else ([], [])
            self.point.data = dict(x=np.array(u, np.float32), y=np.array(v, np.float32))
        for i in range(len(self._ways)):
            terms = seen.terms[i] if seen else None
            if self._fresh(f"{i}-way", terms):
                path = terms.path if terms else np.zeros((0, 2), np.float32)
                self._ways[i].data = dict(x=path[:, 0].copy(), y=path[:, 1].copy())
                self._ends[i].data = dict(x=path[-1:, 0].copy(), y=path[-1:, 1].copy())
            drawing = picture.terms[i] if picture.terms else None
            if self._fresh(f"{i}-arrows", drawing):
                self._show_arrows(i, drawing)

    def _show_arrows(self, panel: int, drawing: Drawing | None) -> None:
        if drawing is None:
            self._arrows[panel].data = dict.fromkeys((*STROKES, "kind"), NONE)
            self._names[panel].data = dict(x=NONE, y=NONE, text=[], kind=NONE)
            return
        self._arrows[panel].data = dict(zip((*STROKES, "kind"), drawing.strokes, strict=True))
        self._names[panel].data = dict(x=drawing.at[0], y=drawing.at[1], text=drawing.names, kind=drawing.kinds)

    def _fresh(self, name: str, value: Any) -> bool:
        """Whether this is not the object that was last shown under the name."""
        fresh = self._shown.get(name) is not value
        self._shown[name] = value
        return fresh
