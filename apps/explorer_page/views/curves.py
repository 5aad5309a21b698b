"""What the panels of curves below the plots have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import panel as pn
from bokeh.plotting import figure

from toyguide_apps.explorer_page.palette import IN_THE_DARK
from toyguide_apps.explorer_page.state import ExplorerState

_COLOURED = ("line_color", "fill_color")
_IN_THE_LIGHT = {dark: light for light, dark in IN_THE_DARK.items()}

__all__ = ["FRAME", "curve_figure", "side_by_side"]

FRAME = {"border-top": "1px solid rgba(128,128,128,.35)", "margin-top": "4px", "padding-top": "4px"}
"""The style of a panel below the plots."""
_HEIGHT = 170


def curve_figure(name: str, title: str, height: int = _HEIGHT, **axes: Any) -> figure:
    """A small figure for curves.

    Args:
        name: Of the Bokeh model.
        title: Above it.
        height: In pixels.
        **axes: Bokeh's settings of ranges and axes.
    """
    f = figure(
        height=height,
        sizing_mode="stretch_width",
        tools="",
        toolbar_location=None,
        title=title,
        output_backend="canvas",
        name=name,
        min_border_left=38,
        **axes,
    )
    f.title.text_font_size = "12px"
    f.axis.major_label_text_font_size = "10px"
    f.axis.axis_line_alpha = 0.3
    f.axis.major_tick_line_alpha = 0.3
    f.axis.minor_tick_line_alpha = 0
    f.grid.grid_line_alpha = 0.25
    return f


def side_by_side(figures: Iterable[figure], state: ExplorerState) -> pn.Row:
    """Small figures in a row, of equal widths, in the page's theme.

    Args:
        figures: The figures, in the colours of the light theme.
        state: Knows the page's theme.
    """
    figures = list(figures)
    state.param.watch(lambda event: _recolour(figures, event.new), "dark")
    if state.dark:
        _recolour(figures, True)
    panes = [pn.pane.Bokeh(f, sizing_mode="stretch_width", height=f.height, margin=0) for f in figures]
    return pn.Row(*panes, sizing_mode="stretch_width", margin=0)


def _recolour(figures: Sequence[figure], dark: bool) -> None:
    """Give everything that is drawn its colour of a theme."""
    colours = IN_THE_DARK if dark else _IN_THE_LIGHT
    for model in {model for f in figures for model in f.references()}:
        for name in _COLOURED:
            before = getattr(model, name, None)
            if isinstance(before, str) and before in colours:
                setattr(model, name, colours[before])
