"""The panel of curves and maps: a metric against one parameter or two, over seeds, beside the pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
import param
from bokeh.models import ColorBar, ColumnDataSource, LinearColorMapper, Range1d, Span
from bokeh.palettes import Viridis256
from bokeh.plotting import figure

from toyguide import Experiment
from toyguide.devices import resolve_device
from toyguide.errors import InputError
from toyguide.metrics import METRICS
from toyguide_apps.explorer_page import palette
from toyguide_apps.explorer_page.layers.responses import (
    MEASURED,
    Axis,
    Plan,
    Question,
    Response,
    measure,
    parameters,
    planned,
    question,
    responses,
    value_of,
    varied,
)
from toyguide_apps.explorer_page.panels import Panel
from toyguide_apps.explorer_page.runs import CancelledError
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.curves import FRAME, curve_figure, side_by_side
from toyguide_apps.explorer_page.views.parts import named
from toyguide_apps.shared.notices import told

__all__ = ["ResponsesPanel"]

_HEIGHT = 260
_SEEDS = (3, 5, 10, 20)
_NO_SECOND = "none: a curve"
_LETTERS = "ABCD"
_MENU: dict[str, Any] = {"size": "small", "width": 170, "margin": (3, 4)}


class ResponsesPanel(pn.viewable.Viewer):
    """A metric against a parameter, a curve for each panel, or against two, a map for each; shown when wanted.

    A line across a curve stands at each panel's present value, and sets it where it is dragged to.

    Args:
        state: Its ``curve`` opens the panel; told what is chosen, and when the panel is closed.
    """

    def __init__(self, state: ExplorerState) -> None:
        super().__init__()
        self._state = state
        self._question: Question | None = None
        self._plan: Plan | None = None
        self._exact: dict[str, Any] = {}
        self._drawn: tuple[Question, str] | None = None
        self._frame: object = None  # what the figures belong to, whatever is drawn in them
        self._running = self._gone = self._following = self._dragged = False
        self._sources: list[dict[str, ColumnDataSource]] = []
        self._marks: dict[tuple[int, str], list[Span]] = {}
        self._colours = LinearColorMapper(palette=Viridis256, nan_color="rgba(0,0,0,0)")
        self._metric = pmui.Select(label="Metric", options={METRICS[k].title: k for k in MEASURED}, **_MENU)
        self._first = pmui.Select(label="Against", options=[], **_MENU)
        self._second = pmui.Select(label="And", options=[], **_MENU)
        self._seeds = pmui.Select(label="Seeds", options=[], **{**_MENU, "width": 90})
        self._menus = (self._metric, self._first, self._second, self._seeds)
        close = pmui.IconButton(icon="close", size="small", description="Close", margin=0)
        close.on_click(lambda _: self._state.set({"curve": None}))
        self._text = pn.pane.HTML("", margin=(2, 8), styles={"font-size": "12.5px"}, sizing_mode="stretch_width")
        head = pn.Row(*self._menus, pn.Spacer(sizing_mode="stretch_width"), close, sizing_mode="stretch_width")
        self._plots = pn.Column(sizing_mode="stretch_width", margin=0)
        self._content = [head, self._text, self._plots]
        self._panel = pn.Column(sizing_mode="stretch_width", margin=0)  # empty until it is wanted
        self._follow()
        for menu in self._menus:
            menu.param.watch(self._choose, "value")
        state.param.watch(lambda *_: self._changed(), [k for k in state.param if k != "name"])

    def wait(self) -> None:
        """Measure and draw nothing until the page is loaded."""
        self._running = True

    def open(self) -> None:
        """Called when the page is loaded."""
        self._running = False
        self._changed()

    def close(self) -> None:
        """Called when the visitor has left."""
        self._gone = True

    async def refresh(self) -> None:
        """Measure what is asked, until nothing is missing; a new question ends the one before."""
        if self._running:
            return
        self._running = True
        try:
            while (asked := self._question) is not None and not (self._gone or self._state.held):
                try:
                    await self._answer(asked)
                except CancelledError:
                    continue
                if asked is self._question:
                    break
        finally:
            self._running = False

    async def _answer(self, asked: Question) -> None:
        self._plan, self._exact = await planned(asked)
        self._draw(asked)
        device = resolve_device("auto").type
        async for _ in measure(self._plan, device, lambda: self._gone or self._question is not asked):
            self._draw(asked)

    def _changed(self) -> None:
        self._follow()
        if self._state.curve is not None:
            pn.state.execute(self.refresh, schedule=True)

    def _follow(self) -> None:
        """Take over the settings: the menus, what is asked, and where the marks stand."""
        state = self._state
        if (state.curve is not None) != bool(len(self._panel)):
            self._panel.objects = [] if state.curve is None else self._content
            self._panel.styles = {} if state.curve is None else FRAME
        if state.curve is None:
            self._question = None
            return
        try:
            runs = self._runs()
        except InputError:
            return  # which the pictures complain of
        offered, names = parameters(runs), state.curve[1:]
        options = list(dict.fromkeys([*offered, *names]))
        self._following = True
        self._metric.value = state.curve[0]
        self._first.param.update(options=options, value=names[0])
        others = {_NO_SECOND: "", **{k: k for k in options if k != names[0]}}
        self._second.param.update(options=others, value=names[1] if len(names) > 1 else "")
        self._seeds.param.update(options=sorted({*_SEEDS, state.seeds}), value=state.seeds)
        self._following = False
        missing = [name for name in names if name not in offered]
        if missing:
            self._question, self._frame, self._plots.objects = None, None, []
            self._text.object = f"No panel has the parameter {escape(missing[0])}."
            return
        asked = question(runs, names, state.seeds)
        if asked != self._question:  # the same question stays the same object
            self._question = asked
        elif self._plan is not None and self._drawn != (asked, state.curve[0]):
            self._draw(self._question)  # of another metric
        self._mark(runs)

    def _runs(self) -> list[Experiment]:
        return [self._state.experiment(i) for i in range(len(self._state.panels))]

    @told
    def _choose(self, _event: param.parameterized.Event) -> None:
        metric, first, second, seeds = (menu.value for menu in self._menus)
        if self._following:
            return
        chosen = (metric, first, *([second] if second not in ("", first) else []))
        self._state.set({"curve": chosen, "seeds": seeds})

    def _draw(self, asked: Question | None) -> None:
        """Draw what is measured so far."""
        if asked is None or asked is not self._question or self._plan is None or self._state.curve is None:
            return
        metric = self._state.curve[0]
        with pn.io.hold():
            self._drawn = asked, metric
            frame = (metric, asked.axes, tuple(e.rule for e in asked.bases), self._exact.get(metric))
            if self._frame != frame:
                self._frame = frame
                self._build(asked, metric)
                self._mark(self._runs())
            found = responses(self._plan, metric)
            if len(asked.axes) == 1:
                for source, response in zip(self._sources, found, strict=True):
                    _fill_curve(source, asked.axes[0], response)
            else:
                self._fill_maps(asked, found)
            self._text.object = self._said(asked, metric, any(np.isfinite(r.mean).any() for r in found))

    def _build(self, asked: Question, metric: str) -> None:
        """New figures, empty."""
        self._marks = {}
        self._sources = [{kind: ColumnDataSource() for kind in ("line", "cells")} for _ in asked.bases]
        if len(asked.axes) == 1:
            self._plots.objects = [side_by_side([self._curve(asked, metric)], self._state)]
        else:
            shown = [i for i, base in enumerate(asked.bases) if _has_all(base, asked.axes)]
            self._plots.objects = [side_by_side([self._map(asked, i, i == shown[-1]) for i in shown], self._state)]

    def _curve(self, asked: Question, metric: str) -> figure:
        (axis,) = asked.axes
        title = f"{METRICS[metric].title} against {axis.name}"
        f = curve_figure("response", title, _HEIGHT, **_axis_settings("x", axis))
        f.xaxis.axis_label = axis.name
        if (exact := self._exact.get(metric)) is not None:
            f.add_layout(Span(location=exact, dimension="width", line_color=palette.REGION, line_dash=[2, 3]))
        for source, base, colour in zip(self._sources, asked.bases, palette.PANELS, strict=False):
            line = source["line"]
            line.data = {k: [] for k in ("x", "mean", "low", "high")}
            f.varea("x", "low", "high", source=line, fill_color=colour, fill_alpha=0.18)
            f.line("x", "mean", source=line, line_color=colour, line_width=2.2)
            if value_of(base, axis.name) is not None:
                f.scatter("x", "mean", source=line, size=5, color=colour)
        self._add_marks(f, asked, range(len(asked.bases)), ("height",))
        return f

    def _map(self, asked: Question, index: int, last: bool) -> figure:
        across, up = asked.axes
        title = f"{_LETTERS[index]}: {named(asked.bases[index]).split('  (')[0]}"
        f = curve_figure(
            f"response-{index + 1}", title, _HEIGHT, **_axis_settings("x", across), **_axis_settings("y", up)
        )
        f.xaxis.axis_label, f.yaxis.axis_label = across.name, up.name
        cells = self._sources[index]["cells"]
        cells.data = {k: [] for k in ("left", "right", "bottom", "top", "mean")}
        colour = {"field": "mean", "transform": self._colours}
        f.quad("left", "right", "bottom", "top", source=cells, fill_color=colour, line_color=None)
        if last:
            f.add_layout(ColorBar(color_mapper=self._colours, width=12, title=None), "right")
            f.min_border_right = 56  # the numbers beside it
        self._add_marks(f, asked, [index], ("height", "width"))
        return f

    def _add_marks(self, f: figure, asked: Question, panels: Sequence[int], dimensions: tuple[str, ...]) -> None:
        """A line at each panel's present value of each axis, which can be dragged."""
        for axis, dimension in zip(asked.axes, dimensions, strict=True):
            for i in panels:
                if value_of(asked.bases[i], axis.name) is None:
                    continue
                colour = palette.PANELS[i] if len(asked.axes) == 1 else palette.HALO
                mark = Span(
                    dimension=dimension,
                    line_color=colour,
                    line_width=2,
                    line_dash=[6, 3],
                    editable=True,
                    name=f"mark-{i + 1}-{axis.name}",
                )
                mark.on_change("location", lambda _attr, _old, new, i=i, name=axis.name: self._moved(i, name, new))
                f.add_layout(mark)
                self._marks.setdefault((i, axis.name), []).append(mark)

    def _mark(self, runs: list[Experiment]) -> None:
        """Put the marks where the parameters are; one that is being dragged is ahead of them."""
        if self._dragged:
            return
        for (i, name), marks in self._marks.items():
            value = value_of(runs[i], name) if i < len(runs) else None
            for mark in marks:
                mark.visible = value is not None and math.isfinite(value)
                if mark.visible and mark.location != value:
                    mark.location = value

    @told
    def _moved(self, index: int, name: str, location: float) -> None:
        """Set a parameter to where its mark was dragged to."""
        run = self._runs()[index]
        if self._question is None or location == value_of(run, name):
            return
        axis = next(axis for axis in self._question.axes if axis.name == name)
        value = min(max(float(f"{location:.3g}"), axis.values[0]), axis.values[-1])
        moved = varied(run, name, value)
        if moved is not None and moved != run:
            self._dragged = True
            try:
                self._state.set(_settings(self._state, index, name, moved))
            finally:
                self._dragged = False

    def _fill_maps(self, asked: Question, found: tuple[Response, ...]) -> None:
        known = np.concatenate([r.mean[np.isfinite(r.mean)].ravel() for r in found] or [np.zeros(0)])
        if len(known):
            self._colours.update(low=float(known.min()), high=float(max(known.max(), known.min() + 1e-9)))
        (x0, x1), (y0, y1) = (_edges(axis) for axis in asked.axes)
        for source, response in zip(self._sources, found, strict=True):
            if response.mean.ndim == 2 and source["cells"].data:
                i, j = np.nonzero(np.isfinite(response.mean))
                source["cells"].data = dict(left=x0[i], right=x1[i], bottom=y0[j], top=y1[j], mean=response.mean[i, j])

    def _said(self, asked: Question, metric: str, any_value: bool) -> str:
        """What is drawn, and how much of it is there."""
        done, of = self._plan.progress() if self._plan else (0, 0)
        runs = self._runs()
        parts = [f"{METRICS[metric].doc}"]
        if len(asked.axes) == 1:
            for letter, run, colour in zip(_LETTERS, runs, palette.PANELS, strict=False):
                name = named(run).split("  (")[0]
                parts.append(f"<span style='color:{palette.css(colour)}'>── {letter}</span> {escape(name)}")
            parts.append(f"band: 95 % interval of the mean over {asked.seeds} seeds · dotted: exact samples")
        else:
            parts.append(f"mean over {asked.seeds} seeds")
        if done < of:
            parts.append(f"computing, {done} of {of} runs")
        elif not any_value:
            parts.append("these runs have no such number")
        return " · ".join(parts)

    def __panel__(self) -> pn.viewable.Viewable:
        return self._panel


def _has_all(run: Experiment, axes: tuple[Axis, ...]) -> bool:
    return all(value_of(run, axis.name) is not None for axis in axes)


def _axis_settings(letter: str, axis: Axis) -> dict[str, Any]:
    """Bokeh's settings of an axis that shows all values."""
    low, high = _edges(axis)
    kind = "log" if axis.logarithmic else "linear"
    return {f"{letter}_axis_type": kind, f"{letter}_range": Range1d(float(low[0]), float(high[-1]))}


def _edges(axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Where the cells of an axis' values begin and end."""
    at = np.log(axis.values) if axis.logarithmic else np.asarray(axis.values)
    middle = (at[1:] + at[:-1]) / 2
    ends = np.concatenate([[2 * at[0] - middle[0]], middle, [2 * at[-1] - middle[-1]]])
    ends = np.exp(ends) if axis.logarithmic else ends
    return ends[:-1], ends[1:]


def _fill_curve(source: dict[str, ColumnDataSource], axis: Axis, response: Response) -> None:
    """A curve's known points; a horizontal line for a run without the parameter."""
    x = np.asarray(axis.values if response.mean.ndim else (axis.values[0], axis.values[-1]))
    parts = {"mean": response.mean, "low": response.low, "high": response.high}
    spread = {name: np.broadcast_to(values, x.shape) for name, values in parts.items()}
    known = np.isfinite(spread["mean"])
    source["line"].data = {"x": x[known], **{name: values[known] for name, values in spread.items()}}


def _settings(state: ExplorerState, index: int, name: str, moved: Experiment) -> dict[str, Any]:
    """The settings that make a panel's run another one, which differs in one parameter."""
    shared = {"steps": "steps", "interval.low": "interval", "interval.high": "interval"}.get(name)
    panels, panel = list(state.panels), state.panels[index]
    if shared is not None and shared not in panel.own:
        return {shared: getattr(moved, shared)}
    own = panel.own if shared is None else {**panel.own, shared: getattr(moved, shared)}
    chosen = type(panel.rule)(**moved.params) if shared is None else panel.rule
    panels[index] = Panel(chosen, own)
    return {"panels": tuple(panels)}
