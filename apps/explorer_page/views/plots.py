"""The two linked plots and the scrubber between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
from bokeh.events import RangesUpdate, Reset, Tap
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    Label,
    LinearColorMapper,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    WheelZoomTool,
)
from bokeh.plotting import figure

from toyguide import Experiment, rules
from toyguide_apps.explorer_page import palette
from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.layers.densities import Arrows, Curves
from toyguide_apps.explorer_page.runs import Paths
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.marks import Marks
from toyguide_apps.shared.notices import told

__all__ = ["PlotPair", "named", "title"]

_SIDES = ("left", "right")
_PATHS = 512  # trajectories drawn as lines; more of them hide each other
_CURVES = {
    "other-regions": dict(line_color=palette.REGION, line_width=1.0, line_alpha=0.45),
    "region": dict(line_color=palette.REGION, line_width=1.3),
    "exact-lines": dict(line_color=palette.DENSITY["exact"], line_width=1.4),
    "main-lines": dict(line_color=palette.DENSITY["main"], line_width=1.4),
    "guide-lines": dict(line_color=palette.DENSITY["guide"], line_width=1.4),
    "boundary": dict(line_color=palette.BOUNDARY, line_width=2.2, line_dash=[6, 3]),
}

# Busy and coarse are style variables, which reach the sign, the plots and the table without any of them being laid out
# again.
_BUSY = """
    const [busy, coarse] = cb_obj.tags
    document.documentElement.style.setProperty('--toyguide-busy', busy)
    document.documentElement.style.setProperty('--toyguide-coarse', coarse)
"""

# Moves the points along their stored trajectories: frames holds (steps + 1) * n coordinates, n per step. The server
# knows where the scrubber stands and needs no copy of what follows from that, so nothing is synchronised.
_SCRUB = """
    const k = Math.round(cb_obj.value)
    const sides = [[left_frames, left_points, left_label], [right_frames, right_points, right_label]]
    for (const [frames, points, label] of sides) {
        const n = points.data.outlier.length
        const take = (c) => new Float32Array(c.buffer, c.byteOffset + 4 * k * n, n)
        if (n == 0 || (k + 1) * n > frames.data.x.length) continue
        const data = {x: take(frames.data.x), y: take(frames.data.y), outlier: points.data.outlier}
        points.setv({data}, {sync: false, check_eq: false})
        label.setv({text: "\\u03c3 = " + Number(levels.data.sigma[k].toPrecision(3))}, {sync: false})
    }
"""


# The point's tag counts how often Escape was pressed: the server hears of the change.
_ESCAPE = """
    document.addEventListener('keydown', (e) => {
        if (e.key == 'Escape' && point.data.x.length > 0) point.tags = [(point.tags[0] ?? 0) + 1]
    })
"""


class PlotPair(pn.viewable.Viewer):
    """Left the reference, right the chosen rule, over the same layers.

    Layers that do not depend on the rule are one data source drawn in both plots, sent once. The points of every step
    are sent once too; the scrubber moves them in the browser.

    Args:
        state: Told of the scrubber's position and of the window when a visitor pans or zooms.
    """

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        left, bottom, right, top = state.window
        self._x_range = Range1d(left, right)
        self._y_range = Range1d(bottom, top)

        self._image = ColumnDataSource(dict(image=[], x=[], y=[], dw=[], dh=[]), name="image")
        self._mapper = LinearColorMapper(palette=palette.BANDS["exact"], low=-0.5, high=7.5)
        empty = np.zeros(0, np.float32)
        self._curves = {k: ColumnDataSource(dict(x=empty, y=empty), name=k) for k in _CURVES}
        strokes = dict(x0=empty, y0=empty, x1=empty, y1=empty)
        self._score = ColumnDataSource(dict(strokes), name="score")
        self._saddles = ColumnDataSource(dict(strokes, value=empty), name="saddles")
        self._saddle_mapper = LinearColorMapper(palette=palette.SADDLE, low=0, high=1)
        self._levels = ColumnDataSource(dict(sigma=empty), name="levels", tags=[0, 0])
        self._levels.js_on_change("tags", CustomJS(code=_BUSY))
        self._guidance = {s: ColumnDataSource(dict(strokes), name=f"{s}-guidance") for s in _SIDES}
        self._paths = {s: ColumnDataSource(dict(x=empty, y=empty), name=f"{s}-paths") for s in _SIDES}
        self._frames = {s: ColumnDataSource(dict(x=empty, y=empty), name=f"{s}-frames") for s in _SIDES}
        self._points = {
            s: ColumnDataSource(dict(x=empty, y=empty, outlier=np.zeros(0, np.uint8)), name=f"{s}-points")
            for s in _SIDES
        }
        self._labels = {
            s: Label(
                x=8, y=8, x_units="screen", y_units="screen", text="", text_font_size="12px", text_color=palette.REGION
            )
            for s in _SIDES
        }
        self._marks = Marks()
        self._figures = {s: self._figure(s) for s in _SIDES}
        self._shown: dict[str, Any] = {}

        self.player = pmui.Player.from_param(
            state.param.step,
            start=0,
            end=state.steps,
            value=state.step,
            interval=90,
            loop_policy="once",
            variant="minimal",
            show_loop_controls=False,
            label="",
            description="",
            sizing_mode="stretch_width",
            margin=(0, 10),
        )
        self.player.jscallback(
            args=dict(
                levels=self._levels,
                **{f"{s}_frames": self._frames[s] for s in _SIDES},
                **{f"{s}_points": self._points[s] for s in _SIDES},
                **{f"{s}_label": self._labels[s] for s in _SIDES},
            ),
            value=_SCRUB,
        )
        self._buttons = [self._step_button("skip_previous", "One step back", -1)]
        self._buttons.append(self._step_button("skip_next", "One step on", 1))
        self._figures["left"].on_event(RangesUpdate, self._moved)
        self._figures["right"].on_event(RangesUpdate, self._moved)
        self._marks.point.on_change("tags", lambda attr, old, new: state.set({"point": None}))
        for f in self._figures.values():
            f.on_event(Reset, self._home)
            f.on_event(Tap, self._tapped)

    def listen(self) -> None:
        """Have the page listen to Escape, before it is sent."""
        if pn.state.curdoc is not None:
            script = CustomJS(args=dict(point=self._marks.point), code=_ESCAPE)
            pn.state.curdoc.js_on_event("document_ready", script)

    def _step_button(self, icon: str, text: str, by: int) -> pmui.IconButton:
        button = pmui.IconButton(icon=icon, size="small", margin=0, description=text)
        # In the browser, like the scrubber itself: the new position reaches the server as if it had been dragged there.
        move = f"const p = player.data; p.value = Math.min(p.end, Math.max(p.start, p.value + ({by})))"
        button.jscallback(args=dict(player=self.player), clicks=move)
        return button

    def scrubber(self) -> pn.viewable.Viewable:
        """Play, step back, step on, and the slider over the noise levels."""
        return pn.Row(*self._buttons, self.player, sizing_mode="stretch_width", margin=0, align="center")

    def _figure(self, side: str) -> figure:
        reset = ResetTool()
        tools = [PanTool(), WheelZoomTool(), reset, SaveTool(filename=f"toyguide-{side}")]
        f = figure(
            x_range=self._x_range,
            y_range=self._y_range,
            tools=tools,
            active_scroll=None,
            toolbar_location="above",
            sizing_mode="stretch_both",
            min_border_left=34,
            min_border_right=6,
            min_border_bottom=22,
            min_border_top=0,
            output_backend="canvas",
            name=f"{side}-figure",
        )
        f.toolbar.logo = None
        f.toolbar.autohide = True
        f.title.text = "…"  # an empty title would be given no room, and get none later
        f.title.text_font_size = "13px"
        f.title.text_font_style = "bold"
        f.grid.visible = False
        f.axis.major_label_text_font_size = "10px"
        f.axis.axis_line_alpha = 0.3
        f.axis.major_tick_line_alpha = 0.3
        f.axis.minor_tick_line_alpha = 0

        f.image("image", x="x", y="y", dw="dw", dh="dh", source=self._image, color_mapper=self._mapper)
        for name, style in _CURVES.items():
            f.line("x", "y", source=self._curves[name], **style)
        f.line("x", "y", source=self._paths[side], line_color=palette.SAMPLE, line_alpha=0.28, line_width=0.8)
        f.segment("x0", "y0", "x1", "y1", source=self._score, line_color=palette.ARROW, line_width=1.1)
        f.segment(
            "x0",
            "y0",
            "x1",
            "y1",
            source=self._saddles,
            line_color=dict(field="value", transform=self._saddle_mapper),
            line_width=2.0,
        )
        f.segment("x0", "y0", "x1", "y1", source=self._guidance[side], line_color=palette.GUIDANCE, line_width=1.1)
        outcome = LinearColorMapper(palette=[palette.SAMPLE, palette.OUTLIER], low=-0.5, high=1.5)
        f.scatter(
            "x",
            "y",
            source=self._points[side],
            size=3.6,
            line_color=None,
            fill_alpha=0.85,
            fill_color=dict(field="outlier", transform=outcome),
        )
        self._marks.draw_on(f, side)
        f.add_layout(self._labels[side])
        return f

    def show(self, picture: Picture) -> None:
        """Draw a picture; what has not changed since the last one is not sent again."""
        request = picture.request
        if self.player.end != request.right.steps:
            self.player.param.update(end=request.right.steps)
        self._show_window(request.window)
        self._levels.tags = [0, int(picture.coarse)]
        if self._fresh("levels", picture.right.sigma):
            self._levels.data = dict(sigma=np.asarray(picture.right.sigma, np.float32))
        for side, paths in zip(_SIDES, (picture.left, picture.right), strict=True):
            self._show_paths(side, paths, request.layers)
        if self._fresh("image", picture.image):
            self._show_image(picture)
        for name, source in self._curves.items():
            self._show_strokes(source, picture.curves.get(name))
        self._show_strokes(self._score, picture.score)
        self._show_strokes(self._saddles, picture.saddles)
        if picture.saddles is not None and len(picture.saddles.value):
            self._saddle_mapper.high = float(np.quantile(picture.saddles.value, 0.98))
        for side, arrows in zip(_SIDES, picture.guidance, strict=True):
            self._show_strokes(self._guidance[side], arrows)
        self._marks.show(picture)

    def busy(self, busy: bool) -> None:
        """Say on the page whether a picture is being computed."""
        self._levels.tags = [int(busy), self._levels.tags[1]]

    def _show_paths(self, side: str, paths: Paths, layers: frozenset[str]) -> None:
        steps = len(paths.frames)
        f = self._figures[side]
        f.title.text = title(side, paths)
        if self._fresh(f"{side}-frames", paths):
            self._frames[side].data = dict(x=paths.frames[..., 0].ravel(), y=paths.frames[..., 1].ravel())
        shown = "samples" in layers
        k = min(self._state.step, steps - 1)
        if self._fresh(f"{side}-points", (id(paths), k, shown)):
            points = paths.frames[k] if shown else paths.frames[k, :0]
            self._points[side].data = dict(
                x=points[:, 0].copy(), y=points[:, 1].copy(), outlier=paths.outlier[: len(points)].astype(np.uint8)
            )
        self._labels[side].text = f"σ = {paths.sigma[k]:.3g}"
        if self._fresh(f"{side}-paths", paths if "paths" in layers else None):
            self._paths[side].data = _path_lines(paths) if "paths" in layers else _path_lines(None)

    def _show_image(self, picture: Picture) -> None:
        image = picture.image
        if image is None:
            self._image.data = dict(image=[], x=[], y=[], dw=[], dh=[])
            return
        left, bottom, right, top = picture.request.window
        # Pixels are centred on the grid's points, so the image reaches half a pixel beyond the window.
        dx, dy = (right - left) / (image.shape[1] - 1), (top - bottom) / (image.shape[0] - 1)
        colours = palette.BACKGROUNDS[picture.palette]
        self._mapper.update(palette=colours, low=-0.5, high=len(colours) - 0.5)
        self._image.data = dict(
            image=[image], x=[left - dx / 2], y=[bottom - dy / 2], dw=[right - left + dx], dh=[top - bottom + dy]
        )

    def _show_strokes(self, source: ColumnDataSource, strokes: Arrows | Curves | None) -> None:
        if not self._fresh(source.name, strokes):
            return
        columns = list(source.data)
        none = np.zeros(0, np.float32)
        source.data = {c: none if strokes is None else getattr(strokes, c) for c in columns}

    def _show_window(self, window: tuple[float, float, float, float]) -> None:
        left, bottom, right, top = window
        self._x_range.update(start=left, end=right, reset_start=left, reset_end=right)
        self._y_range.update(start=bottom, end=top, reset_start=bottom, reset_end=top)

    def _fresh(self, name: str, value: Any) -> bool:
        """Whether this is not what was last shown under the name: another object, or another tuple of numbers."""
        known = self._shown.get(name, self)
        if known is value or (isinstance(value, tuple) and known == value):
            return False
        self._shown[name] = value
        return True

    def _moved(self, event: RangesUpdate) -> None:
        window = tuple(float(v) for v in (event.x0, event.y0, event.x1, event.y1))
        if window != self._state.window:
            self._state.set({"window": window})

    @told
    def _tapped(self, event: Tap) -> None:
        self._state.set({"point": (event.x, event.y)})

    def _home(self, _event: Reset) -> None:
        self._state.go_home()

    def __panel__(self) -> pn.viewable.Viewable:
        # Square plots, as large as the page's height allows, so that all of it fits without scrolling.
        square = """
            :host { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; width: 100%;
                    max-width: calc(2 * (100vh - 365px)); min-width: 560px; margin: 0 auto; }
            :host > * { aspect-ratio: 1 / 1.02; width: 100%; min-width: 0; }
            /* Faded while the plots lag behind the settings, but not for a moment. */
            :host { opacity: calc(1 - 0.55 * var(--toyguide-busy, 0)); }
            :host { transition: opacity 0.15s calc(0.4s * var(--toyguide-busy, 0)); }
        """
        panes = [pn.pane.Bokeh(f, sizing_mode="stretch_width", margin=0) for f in self._figures.values()]
        return pn.Row(*panes, stylesheets=[square], sizing_mode="stretch_width", margin=0)


def named(experiment: Experiment) -> str:
    """A run's rule with its parameters."""
    values = ", ".join(f"{k} = {v:g}" for k, v in experiment.params.items() if isinstance(v, float | int))
    name = rules()[experiment.rule].title.removesuffix(" (reconstruction)")
    return f"{name}  ({values})" if values else name


def title(side: str, paths: Paths) -> str:
    """What a plot shows: the rule, its parameters, and how many trajectories got lost."""
    experiment = paths.experiment
    text = named(experiment)
    if paths.coarse:
        text += f"  ·  first {paths.frames.shape[1]} of {experiment.n}"
    elif paths.diverged:
        text += f"  ·  {paths.diverged} of {experiment.n} diverged"
    if paths.far and not paths.coarse:
        text += f"  ·  {paths.far} of {experiment.n} far away"
    return f"Reference: {text}" if side == "left" else text


def _path_lines(paths: Paths | None) -> dict[str, np.ndarray]:
    """The first trajectories as one line with NaN between them."""
    if paths is None:
        none = np.zeros(0, np.float32)
        return dict(x=none, y=none)
    steps, n, _ = paths.frames.shape
    n = min(n, _PATHS)
    padded = np.full((n, steps + 1, 2), np.nan, np.float32)
    padded[:, :steps] = paths.frames[:, :n].transpose(1, 0, 2)
    return dict(x=padded[..., 0].ravel(), y=padded[..., 1].ravel())
