"""The panel that follows one sample through every panel's run, step by step."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
from bokeh.models import ColumnDataSource, NumeralTickFormatter, Range1d, Span
from bokeh.plotting import figure

from toyguide_apps.explorer_page import palette
from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.layers.trail import Trail
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.curves import FRAME, curve_figure, side_by_side
from toyguide_apps.explorer_page.views.parts import named

__all__ = ["TrailPanel"]

_TITLES = {
    "size": "Length of the push (thin: moves)",
    "to_main": "Push against main's move, cosine",
    "to_truth": "Push against the truth, cosine",
    "scale": "CFG's weight nearest to the push",
    "beyond": "Share of the push beyond any CFG",
    "curvature": "Top σ²λ of main",
    "alignment": "SFG's v to the top eigenvector: cosine",
    "probability": "Exact probability of the class",
    "log_density": "Exact log-density, nats",
}
_LEVEL = {"to_main": 0.0, "to_truth": 0.0, "scale": 1.0, "curvature": 0.0}  # where a curve changes its meaning
_RANGES = {
    "to_main": (-1.05, 1.05),
    "to_truth": (-1.05, 1.05),
    "beyond": (-0.03, 1.03),
    "alignment": (-0.03, 1.03),
    "probability": (-0.03, 1.03),
}
_NONE = np.zeros(0)


class TrailPanel(pn.viewable.Viewer):
    """What a rule does to one sample, over the noise levels: a curve for each panel, in the panel's colour.

    Args:
        state: Its ``sample`` opens the panel; told when the panel is closed.
    """

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        empty = dict.fromkeys(("sigma", "quotient", *_TITLES), _NONE)
        self._sources = [ColumnDataSource(empty, name=f"trail-{i + 1}") for i in range(len(palette.PANELS))]
        self._moves = [ColumnDataSource({"xs": [], "ys": []}) for _ in palette.PANELS]
        self._shown: tuple[Trail | None, ...] | None = None
        self._x_range = Range1d(5.0, 0.002)
        self._here = [Span(location=np.nan, dimension="height", line_color=palette.REGION) for _ in _TITLES]
        self._text = pn.pane.HTML("", margin=(8, 8), styles={"font-size": "12.5px"}, sizing_mode="stretch_width")
        close = pmui.IconButton(icon="close", size="small", description="Close", margin=0)
        close.on_click(lambda _: self._state.set({"sample": None}))
        self._head = pn.Row(self._text, close, sizing_mode="stretch_width", margin=0)
        self._figures: dict[str, figure] = {}  # made when they are first wanted
        self._drawn: list[str] = []
        self._plots = pn.Column(sizing_mode="stretch_width", margin=0)
        self._panel = pn.Column(sizing_mode="stretch_width", margin=0)  # empty until it is wanted
        self._follow()
        state.param.watch(lambda *_: self._follow(), "sample")
        state.param.watch(lambda *_: self._point_out(), ["step", "steps"])

    def _follow(self) -> None:
        wanted = self._state.sample is not None
        if wanted == bool(len(self._panel)):
            return
        if wanted and not self._figures:
            self._figures = {name: self._figure(name, here) for name, here in zip(_TITLES, self._here, strict=True)}
        self._panel.objects = [self._head, self._plots] if wanted else []
        self._panel.styles = FRAME if wanted else {}
        self._point_out()

    def _figure(self, name: str, here: Span) -> figure:
        axes: dict[str, Any] = {"x_axis_type": "log", "x_range": self._x_range}
        if name == "size":
            axes["y_axis_type"] = "log"
        elif name in _RANGES:
            axes["y_range"] = Range1d(*_RANGES[name])
        f = curve_figure(f"trail-{name}", _TITLES[name], **axes)
        f.xaxis.formatter = NumeralTickFormatter(format="0.[000]")
        if name in _LEVEL:
            f.add_layout(Span(location=_LEVEL[name], dimension="width", line_color=palette.REGION, line_width=1))
        f.add_layout(here)
        for source, moves, colour in zip(self._sources, self._moves, palette.PANELS, strict=True):
            if name == "size":
                f.multi_line("xs", "ys", source=moves, line_color=colour, line_width=0.9, line_alpha=0.8)
            if name == "curvature":
                f.line("sigma", "quotient", source=source, line_color=colour, line_width=1.6, line_dash=[6, 3])
            f.line("sigma", name, source=source, line_color=colour, line_width=2.2)
        return f

    def show(self, picture: Picture) -> None:
        """Draw a picture's trails; a coarse picture has none, and leaves those that are shown."""
        trails = picture.trails
        if trails is None or trails == self._shown:
            return
        self._shown = trails
        levels = np.concatenate([t.sigma[:-1] for t in trails if t is not None] or [np.array([0.002, 5.0])])
        self._x_range.update(start=float(levels.max()) * 1.2, end=float(levels.min()) / 1.2)  # as the time line runs
        for i, (source, moves) in enumerate(zip(self._sources, self._moves, strict=True)):
            found = trails[i] if i < len(trails) else None
            source.data = _columns(found) if found else dict.fromkeys(source.data, _NONE)
            lengths = list(found.moves.values()) if found else []
            moves.data = {"xs": [found.sigma[:-1] for _ in lengths] if found else [], "ys": lengths}
        iterated = any(t is not None and t.alignment is not None for t in trails)
        names = [name for name in _TITLES if iterated or name != "alignment"]
        if names != self._drawn:
            self._drawn = names
            half = (len(names) + 1) // 2
            rows = [names[:half], names[half:]]
            self._plots.objects = [side_by_side([self._figures[name] for name in row], self._state) for row in rows]
        self._figures["curvature"].title.text = _TITLES["curvature"] + ("; dashed: SFG's λ" if iterated else "")
        self._text.object = _text(picture.request.sample, trails)

    def _point_out(self) -> None:
        """Mark where the time line is."""
        if len(self._panel):
            levels = self._state.levels()
            for span in self._here:
                span.location = levels[min(self._state.step, len(levels) - 2)]

    def __panel__(self) -> pn.viewable.Viewable:
        return self._panel


def _columns(found: Trail) -> dict[str, np.ndarray]:
    """The curves at the steps' beginnings; a logarithmic axis has no place for 0."""
    steps, nothing = len(found.push), np.full(len(found.push), np.nan)
    return {
        "sigma": found.sigma[:-1],
        "size": np.where(found.push > 0, found.push, np.nan),
        "to_main": found.to_main,
        "to_truth": found.to_truth,
        "scale": found.scale,
        "beyond": found.beyond,
        "curvature": found.curvature,
        "quotient": nothing if found.quotient is None else found.quotient,
        "alignment": nothing if found.alignment is None else found.alignment,
        "probability": found.posterior[:steps, found.labels.index(found.label)],
        "log_density": found.log_density[:-1],
    }


def _text(sample: int | None, trails: tuple[Trail | None, ...]) -> str:
    parts = [f"Sample {sample}, step by step over the noise level"]
    for letter, found, colour in zip("ABCD", trails, palette.PANELS, strict=False):
        said = "has no such sample"
        if found is not None:
            title = named(found.experiment)
            probability = found.posterior[-1, found.labels.index(found.label)]
            said = (
                f"{title}: ends at log-density {found.log_density[-1]:.2f}, class {found.label} with {probability:.0%}"
            )
        parts.append(f"<span style='color:{palette.css(colour)}'>── {letter}</span> {escape(said)}")
    return " · ".join(parts)
