"""The panel that shows the edge between two classes as curves."""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
from bokeh.models import ColumnDataSource, Range1d, Span
from bokeh.plotting import figure

from toyguide.datasets import load_dataset
from toyguide_apps.explorer_page import palette
from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.layers.edge import Profile
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.curves import FRAME, curve_figure, side_by_side
from toyguide_apps.shared.notices import told

__all__ = ["ProfilePanel"]

_NONE = np.zeros(0, np.float32)
_TITLES = {
    "log_density": "Log-density, less its highest",
    "curvature": "Top eigenvalue σ²λ",
    "posterior": "Class posterior",
}
_FIELDS = {"exact": palette.DENSITY["exact"], "learned": palette.DENSITY["main"]}


class ProfilePanel(pn.viewable.Viewer):
    """Log-density, top eigenvalue and posterior along the line through two classes' means, shown when wanted.

    Args:
        state: Told of the classes that are chosen.
    """

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        self._x_range = Range1d(-0.25, 1.25)
        self._sources = {
            name: ColumnDataSource({"t": _NONE, **dict.fromkeys(columns, _NONE)}, name=f"profile-{name}")
            for name, columns in (("log_density", _FIELDS), ("curvature", _FIELDS), ("posterior", ("a", "b")))
        }
        self._spans: list[Span] = []
        self._figures: dict[str, figure] = {}  # made when they are first wanted
        self._menus = [
            pmui.Select(label=text, options=[], size="small", width=110, margin=(6, 4)) for text in ("From", "To")
        ]
        for menu in self._menus:
            menu.param.watch(self._chosen, "value")
        self._text = pn.pane.HTML("", margin=(12, 8), styles={"font-size": "12.5px"}, sizing_mode="stretch_width")
        close = pmui.IconButton(icon="close", size="small", description="Close", margin=0)
        close.on_click(lambda _: self._state.set({"profile": False}))
        self._head = pn.Row(*self._menus, self._text, close, sizing_mode="stretch_width", margin=0)
        self._panel = pn.Column(sizing_mode="stretch_width", margin=0)  # empty until it is wanted
        self._following = False
        self._shown: Profile | None = None
        self._follow()
        state.param.watch(lambda *_: self._follow(), ["dataset", "profile", "ends"])

    def _plots(self) -> pn.Row:
        self._figures = self._figures or {name: self._figure(name) for name in _TITLES}
        return side_by_side(self._figures.values(), self._state)

    def _figure(self, name: str) -> figure:
        f = curve_figure(f"profile-{name}-figure", _TITLES[name], x_range=self._x_range)
        f.xaxis.ticker = [0, 0.5, 1]
        if name == "curvature":
            f.add_layout(Span(location=0, dimension="width", line_color=palette.REGION, line_width=1))
        saddle = Span(
            location=np.nan, dimension="height", line_color=palette.UNSTABLE, line_dash=[4, 3], line_width=1.6
        )
        self._spans.append(saddle)
        f.add_layout(saddle)
        colours = _FIELDS if name != "posterior" else {"a": palette.SAMPLE, "b": palette.OUTLIER}
        dashes = {"learned": [6, 3], "b": [6, 3]}
        for column, colour in colours.items():
            dash = dashes.get(column, [])
            f.line("t", column, source=self._sources[name], line_color=colour, line_width=2.2, line_dash=dash)
        return f

    @told
    def _chosen(self, _event: Any) -> None:
        ends = tuple(menu.value for menu in self._menus)
        if not self._following and None not in ends:
            # The class that the other menu shows already: the two change places.
            self._state.set({"ends": ends if ends[0] != ends[1] else self._state.ends[::-1]})

    def _follow(self) -> None:
        ends = self._state.ends
        wanted = bool(self._state.profile and ends)
        if wanted != bool(len(self._panel)):
            self._panel.objects = [self._head, self._plots()] if wanted else []
            self._panel.styles = FRAME if wanted else {}
        labels = list(load_dataset(self._state.dataset).labels)
        self._following = True
        for menu, value in zip(self._menus, ends or (None, None), strict=True):
            menu.param.update(options=labels, value=value)
        self._following = False
        if ends:
            for f in self._figures.values():
                f.xaxis.major_label_overrides = {0: ends[0], 0.5: "½", 1: ends[1]}

    def show(self, picture: Picture) -> None:
        """Draw a picture's profile."""
        seen = picture.profile
        if seen is None or seen is self._shown:
            return
        self._shown = seen
        for name in ("log_density", "curvature"):
            curves = getattr(seen, name)
            self._sources[name].data = dict(
                t=seen.t, **{k: curves.get(k, np.full_like(seen.t, np.nan)) for k in _FIELDS}
            )
        self._sources["posterior"].data = dict(t=seen.t, a=seen.posterior[0], b=seen.posterior[1])
        for span in self._spans:
            span.location = np.nan if seen.saddle is None else seen.saddle
        self._text.object = _text(seen)

    def __panel__(self) -> pn.viewable.Viewable:
        return self._panel


def _text(seen: Profile) -> str:
    exact, learned = (palette.css(_FIELDS[name]) for name in ("exact", "learned"))
    parts = [f"σ = {seen.sigma:.4g}", f"<span style='color:{exact}'>──</span> exact union"]
    if seen.learned:
        parts.append(f"<span style='color:{learned}'>╌╌</span> {seen.learned}")
    if seen.saddle is None:
        parts.append("no saddle between them at this noise level")
    else:
        value = np.interp(seen.saddle, seen.t, seen.curvature["exact"])
        parts.append(f"saddle at {seen.saddle:.2f} of the way, σ²λ = {value:.3g} (exact)")
    return " · ".join(parts)
