"""The panel that shows what each rule does to the main field's error, over the noise levels."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
from bokeh.models import ColumnDataSource, NumeralTickFormatter, Range1d, Span
from bokeh.plotting import figure

from toyguide.palette import DASHES, LIGHT
from toyguide_apps.explorer_page import palette
from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.layers.errors import ErrorCurves
from toyguide_apps.explorer_page.panels import LETTERS
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.curves import FRAME, curve_figure, side_by_side
from toyguide_apps.explorer_page.views.parts import named

__all__ = ["ErrorsPanel"]

_NONE = np.zeros(0, np.float32)
_TITLES = {
    "cosine": "Direction of the push: cosine, 1 is to the truth",
    "size": "Size of the push / size of the error",
    "shortened": "Share of points with a shorter error",
}
_NEUTRAL = {"cosine": 0.0, "size": 1.0, "shortened": 0.5}
_LOOKS = tuple(zip(LIGHT.panels, map(list, DASHES), LETTERS, strict=True))
"""Colour and dashes of the panels' curves, and the panels' letters."""


class ErrorsPanel(pn.viewable.Viewer):
    """Direction and size of the push beside the error, and where it helps, on exact diffused points; shown when wanted.

    Args:
        state: Told when the panel is closed.
    """

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        self._sources = [
            ColumnDataSource({"sigma": _NONE, **dict.fromkeys(_TITLES, _NONE)}, name=f"errors-{i + 1}")
            for i in range(len(LETTERS))
        ]
        self._shown: dict[int, ErrorCurves] = {}
        self._plots = pn.Row()  # made when they are first wanted
        self._x_range = Range1d(0.002, 5.0)
        self._here = [Span(location=np.nan, dimension="height", line_color=palette.REGION) for _ in _TITLES]
        self._text = pn.pane.HTML("", margin=(8, 8), styles={"font-size": "12.5px"}, sizing_mode="stretch_width")
        close = pmui.IconButton(icon="close", size="small", description="Close", margin=0)
        close.on_click(lambda _: self._state.set({"errors": False}))
        self._head = pn.Row(self._text, close, sizing_mode="stretch_width", margin=0)
        self._panel = pn.Column(sizing_mode="stretch_width", margin=0)  # empty until it is wanted
        self._follow()
        state.param.watch(lambda *_: self._follow(), "errors")

    def _follow(self) -> None:
        if self._state.errors == bool(len(self._panel)):
            return
        if self._state.errors and not len(self._plots):
            figures = [self._figure(*item) for item in zip(_TITLES, self._here, strict=True)]
            self._plots = side_by_side(figures, self._state)
        self._panel.objects = [self._head, self._plots] if self._state.errors else []
        self._panel.styles = FRAME if self._state.errors else {}

    def _figure(self, name: str, here: Span) -> figure:
        axes: dict[str, Any] = {"x_axis_type": "log", "x_range": self._x_range}
        if name == "size":
            axes["y_axis_type"] = "log"
        else:
            axes["y_range"] = Range1d(-1.05, 1.05) if name == "cosine" else Range1d(-0.03, 1.03)
        f = curve_figure(f"errors-{name}", _TITLES[name], **axes)
        for axis in f.axis:
            axis.formatter = NumeralTickFormatter(format="0.[000]")
        f.add_layout(Span(location=_NEUTRAL[name], dimension="width", line_color=palette.REGION, line_width=1))
        f.add_layout(here)
        for source, (colour, dash, _) in zip(self._sources, _LOOKS, strict=True):
            f.line("sigma", name, source=source, line_color=colour, line_width=2.2, line_dash=dash)
        return f

    def show(self, picture: Picture) -> None:
        """Draw a picture's curves."""
        if picture.errors is None:
            return
        sigma = picture.errors[0].sigma
        self._x_range.update(start=float(sigma[0]) / 1.2, end=float(sigma[-1]) * 1.2)
        self._plots.visible = any(seen.values for seen in picture.errors)
        for i, source in enumerate(self._sources):
            seen = picture.errors[i] if i < len(picture.errors) else ErrorCurves(picture.runs[0].experiment, sigma, {})
            if seen is self._shown.get(i):
                continue
            self._shown[i] = seen
            values = seen.values or dict.fromkeys(_TITLES, np.full_like(seen.sigma, np.nan))
            source.data = dict(sigma=seen.sigma, **{name: values[name] for name in _TITLES})
        for span in self._here:
            span.location = picture.request.sigma
        self._text.object = _text(picture.errors, picture.request.sigma)

    def __panel__(self) -> pn.viewable.Viewable:
        return self._panel


def _text(seen: tuple[ErrorCurves, ...], sigma: float) -> str:
    parts = [f"Over the noise level, on exact diffused points; line at σ = {sigma:.3g}"]
    for curves, (colour, _, sign) in zip(seen, _LOOKS, strict=False):
        said = curves.empty
        if not said:
            at = int(np.abs(np.log(curves.sigma / sigma)).argmin())
            best = float(curves.values["best_multiple"][at])
            said = "adds nothing here" if np.isnan(best) else f"best multiple of its push here {best:z.2f}"
        name = f"<span style='color:{palette.css(colour)}'>── {sign}</span> {escape(named(curves.experiment))}"
        parts.append(f"{name}: {escape(said)}")
    return " · ".join(parts)
