"""The linked plots, one for each panel, and the scrubber over the noise levels."""

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
    Line,
    LinearColorMapper,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    Scatter,
    Segment,
    WheelZoomTool,
)
from bokeh.plotting import figure

from toyguide import Experiment, rule
from toyguide_apps.explorer_page import palette
from toyguide_apps.explorer_page.compute import Picture
from toyguide_apps.explorer_page.layers.densities import Arrows
from toyguide_apps.explorer_page.panels import nearest
from toyguide_apps.explorer_page.runs import Paths
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.glyphs import draw
from toyguide_apps.explorer_page.views.marks import Marks
from toyguide_apps.explorer_page.views.underlay import ENDS, NONE, STROKES, Underlay
from toyguide_apps.shared.notices import told

__all__ = ["Plots", "named", "panel_name", "title"]

_PATHS = 512  # trajectories drawn as lines; more of them hide each other

# Busy and coarse are style variables, which reach the sign, the plots and the table without a new layout.
_BUSY = """
    const [busy, coarse] = cb_obj.tags
    document.documentElement.style.setProperty('--toyguide-busy', busy)
    document.documentElement.style.setProperty('--toyguide-coarse', coarse)
"""

# Moves the points along their stored trajectories: a panel's frames hold (steps + 1) * n coordinates, n per step, and
# its tags the noise levels. The server knows where the scrubber is, so that nothing needs to be synchronised.
_SCRUB = """
    const k = Math.round(cb_obj.value)
    if (k >= scrubber.data.sigma.length) return
    const sigma = scrubber.data.sigma[k]
    const apart = (level) => level > 0 ? Math.abs(Math.log(level / sigma)) : Infinity
    for (let i = 0; i < frames.length; i++) {
        const levels = frames[i].tags, n = points[i].data.outlier.length
        let at = levels.length - 1
        if (sigma > 0) levels.forEach((level, j) => { if (apart(level) < apart(levels[at])) at = j })
        const take = (c) => new Float32Array(c.buffer, c.byteOffset + 4 * at * n, n)
        if (n == 0 || (at + 1) * n > frames[i].data.x.length) continue
        const data = {x: take(frames[i].data.x), y: take(frames[i].data.y), outlier: points[i].data.outlier}
        points[i].setv({data}, {sync: false, check_eq: false})
        labels[i].setv({text: "\\u03c3 = " + Number(levels[at].toPrecision(3))}, {sync: false})
    }
"""

# The point's tag counts how often Escape was pressed: the server hears of the change.
_ESCAPE = """
    document.addEventListener('keydown', (e) => {
        if (e.key == 'Escape' && point.data.x.length > 0) point.tags = [(point.tags[0] ?? 0) + 1]
    })
"""


def panel_name(index: int) -> str:
    """The prefix of a panel's Bokeh models' names."""
    return f"panel-{index + 1}"


class Plots(pn.viewable.Viewer):
    """One plot for each panel, over the same window.

    The points of every step are sent once; the scrubber moves them in the browser.

    Args:
        state: Told of the scrubber's position and of the window when a visitor pans or zooms.
    """

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        left, bottom, right, top = state.window
        self._x_range = Range1d(left, right)
        self._y_range = Range1d(bottom, top)

        names = [panel_name(i) for i in range(len(state.panels))]
        self._levels = ColumnDataSource(dict(sigma=NONE), name="levels", tags=[0, 0])
        self._levels.js_on_change("tags", CustomJS(code=_BUSY))
        self._guidance = [ColumnDataSource(dict.fromkeys(STROKES, NONE), name=f"{s}-guidance") for s in names]
        self._paths = [ColumnDataSource(dict(x=NONE, y=NONE), name=f"{s}-paths") for s in names]
        self._frames = [ColumnDataSource(dict(x=NONE, y=NONE), name=f"{s}-frames") for s in names]
        outcome = np.zeros(0, np.uint8)
        self._points = [ColumnDataSource(dict(x=NONE, y=NONE, outlier=outcome), name=f"{s}-points") for s in names]
        corner: dict[str, Any] = dict(x=8, y=8, x_units="screen", y_units="screen", text="")
        self._labels = [Label(**corner, text_font_size="12px", text_color=palette.REGION) for _ in names]
        self._underlay = Underlay()
        self._marks = Marks(names)
        self._figures = [self._figure(i, name) for i, name in enumerate(names)]
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
        scrubbed = dict(frames=self._frames, points=self._points, labels=self._labels)
        self.player.jscallback(args=dict(scrubber=self._levels, **scrubbed), value=_SCRUB)
        self._buttons = [self._step_button("skip_previous", "One step back", -1)]
        self._buttons.append(self._step_button("skip_next", "One step on", 1))
        self._marks.point.on_change("tags", lambda attr, old, new: state.set({"point": None}))
        for f in self._figures:
            f.on_event(RangesUpdate, self._moved)
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

    def _figure(self, panel: int, name: str) -> figure:
        tools = [PanTool(), WheelZoomTool(), ResetTool(), SaveTool(filename=f"toyguide-{name}")]
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
            name=f"{name}-figure",
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

        self._underlay.draw_on(f, "background")
        draw(f, self._paths[panel], Line(x="x", y="y", line_color=palette.SAMPLE, line_alpha=0.28, line_width=0.8))
        self._underlay.draw_on(f, "arrows")
        draw(f, self._guidance[panel], Segment(**ENDS, line_color=palette.GUIDANCE, line_width=1.1))
        outcome = LinearColorMapper(palette=[palette.SAMPLE, palette.OUTLIER], low=-0.5, high=1.5)
        draw(
            f,
            self._points[panel],
            Scatter(
                x="x",
                y="y",
                size=3.6,
                line_color=None,
                fill_alpha=0.85,
                fill_color=dict(field="outlier", transform=outcome),
            ),
        )
        self._underlay.draw_on(f, "critical")
        self._marks.draw_on(f, panel)
        f.add_layout(self._labels[panel])
        return f

    def show(self, picture: Picture) -> None:
        """Draw a picture; what has not changed since the last one is not sent again."""
        request = picture.request
        if self.player.end != self._state.steps:
            self.player.param.update(end=self._state.steps)
        self._show_window(request.window)
        self._levels.tags = [0, int(picture.coarse)]
        levels = self._state.levels()
        if self._fresh("levels", levels):
            self._levels.data = dict(sigma=np.asarray(levels, np.float32))
        for panel, (paths, arrows) in enumerate(zip(picture.runs, picture.guidance, strict=True)):
            self._show_paths(panel, paths, request.layers)
            self._show_guidance(panel, arrows)
        self._underlay.show(picture.scenes, request)
        self._marks.show(picture)

    def busy(self, busy: bool) -> None:
        """Say on the page whether a picture is being computed."""
        self._levels.tags = [int(busy), self._levels.tags[1]]

    def _show_paths(self, panel: int, paths: Paths, layers: frozenset[str]) -> None:
        reference = panel == 0 and len(self._figures) > 1
        self._figures[panel].title.text = title(paths, reference)
        if self._fresh(f"{panel}-frames", paths):
            self._frames[panel].tags = list(paths.sigma)
            self._frames[panel].data = dict(x=paths.frames[..., 0].ravel(), y=paths.frames[..., 1].ravel())
        shown = "samples" in layers
        k = nearest(paths.sigma, self._state.level())
        if self._fresh(f"{panel}-points", (id(paths), k, shown)):
            points = paths.frames[k] if shown else paths.frames[k, :0]
            self._points[panel].data = dict(
                x=points[:, 0].copy(), y=points[:, 1].copy(), outlier=paths.outlier[: len(points)].astype(np.uint8)
            )
        self._labels[panel].text = f"σ = {paths.sigma[k]:.3g}"
        if self._fresh(f"{panel}-paths", paths if "paths" in layers else None):
            self._paths[panel].data = _path_lines(paths) if "paths" in layers else _path_lines(None)

    def _show_guidance(self, panel: int, arrows: Arrows | None) -> None:
        if self._fresh(f"{panel}-guidance", arrows):
            self._guidance[panel].data = {c: NONE if arrows is None else getattr(arrows, c) for c in STROKES}

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
            :host { display: grid; grid-template-columns: repeat(PANELS, 1fr); gap: 4px; width: 100%;
                    max-width: calc(PANELS * (100vh - 365px)); min-width: calc(PANELS * 280px); margin: 0 auto; }
            :host > * { aspect-ratio: 1 / 1.02; width: 100%; min-width: 0; }
            /* Faded while the plots lag behind the settings, but not for a moment. */
            :host { opacity: calc(1 - 0.55 * var(--toyguide-busy, 0)); }
            :host { transition: opacity 0.15s calc(0.4s * var(--toyguide-busy, 0)); }
        """.replace("PANELS", str(len(self._figures)))
        panes = [pn.pane.Bokeh(f, sizing_mode="stretch_width", margin=0) for f in self._figures]
        return pn.Row(*panes, stylesheets=[square], sizing_mode="stretch_width", margin=0)


def named(experiment: Experiment) -> str:
    """A run's rule with its parameters."""
    shown = {k: v for k, v in experiment.params.items() if isinstance(v, float | int)}
    words = {True: "on", False: "off"}
    values = ", ".join(f"{k} {words[v]}" if isinstance(v, bool) else f"{k} = {v:g}" for k, v in shown.items())
    name = rule(experiment.rule).title.removesuffix(" (reconstruction)")
    return f"{name}  ({values})" if values else name


def title(paths: Paths, reference: bool = False) -> str:
    """What a plot shows: the rule, its parameters, and how many trajectories got lost.

    Args:
        paths: The run.
        reference: Whether the other panels are compared with it.
    """
    experiment = paths.experiment
    text = named(experiment)
    if paths.coarse:
        text += f"  ·  first {paths.frames.shape[1]} of {experiment.n}"
    elif paths.diverged:
        text += f"  ·  {paths.diverged} of {experiment.n} diverged"
    if paths.far and not paths.coarse:
        text += f"  ·  {paths.far} of {experiment.n} far away"
    return f"Reference: {text}" if reference else text


def _path_lines(paths: Paths | None) -> dict[str, np.ndarray]:
    """The first trajectories as one line with NaN between them."""
    if paths is None:
        return dict(x=NONE, y=NONE)
    steps, n, _ = paths.frames.shape
    n = min(n, _PATHS)
    padded = np.full((n, steps + 1, 2), np.nan, np.float32)
    padded[:, :steps] = paths.frames[:, :n].transpose(1, 0, 2)
    return dict(x=padded[..., 0].ravel(), y=padded[..., 1].ravel())
