"""A study's figure: panels in rows, sized by the space that their text leaves, with legends below them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from toyguide.palette import LIGHT
from toyguide.plots.charts import Keys, categories, draw_chart, numbers_of
from toyguide.plots.marks import label_marks
from toyguide.plots.panels import Backdrop, backdrop_of, draw_cloud, draw_map
from toyguide.plots.parts import TEXT
from toyguide.studies.charts import Chart, Cloud, Map, Sheet

__all__ = ["draw_sheet"]

_WIDTHS = (5.2, 7.8, 10.0, 10.0)  # inches of a sheet with one, two, three, four columns
_PER_CATEGORY = 1.1  # wanted width of a category, in inches
_EDGE, _GAP = 0.08, 0.16
_TEXT_WIDTH = {Chart: 0.62, Cloud: 0.1, Map: 0.6}  # first guess of the text beside the axes, in inches
_SLOPE, _LOWEST, _HIGHEST = 0.72, 1.9, 3.0  # a chart's height over its width, and its bounds in inches


_Legends = list[tuple[Legend, float, float]]
"""Legends with the centre of their upper edge, in inches from the left and from the top."""


@dataclass
class _Panel:
    """A panel during layout, in inches; ``margins`` is the text on the left, bottom, right and top of the axes."""

    what: Chart | Cloud | Map
    axes: Axes
    size: tuple[float, float] = (0.0, 0.0)
    margins: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    keys: Keys = field(default_factory=dict)


def draw_sheet(sheet: Sheet) -> Figure:
    """Draw a study's figure.

    Axes have the same width, a row has at most four panels, and the figure is at most 10 inches wide. There is one
    legend below if all panels share their series, else one below each group of neighbours that do.
    """
    columns = _columns(sheet)
    width = _width(sheet, columns)
    figure = Figure(figsize=(width, width), facecolor="white")
    renderer = FigureCanvasAgg(figure).get_renderer()
    panels = [_Panel(what, figure.add_axes((0, 0, 1, 1))) for what in sheet.panels]
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]

    _resize(rows, [(width - 2 * _EDGE) / columns - max(_TEXT_WIDTH[type(p.what)] for p in panels)] * len(rows), figure)
    _draw(panels)
    for _ in range(2):  # the text decides the size, which changes the text a little
        _measure(panels, renderer)
        _resize(rows, [_inner_width(rows, width)] * len(rows), figure)
    _measure(panels, renderer)
    _stack(figure, rows, width, renderer)
    for panel in panels:
        if isinstance(panel.what, Chart):
            label_marks(panel.axes, panel.what, renderer)
    return figure


def _columns(sheet: Sheet) -> int:
    """Panels per row: what the sheet asks for, or rows as even as possible if that is too many."""
    wanted = min(sheet.columns or len(sheet.panels), len(sheet.panels))
    return wanted if wanted <= len(_WIDTHS) else math.ceil(wanted / math.ceil(wanted / len(_WIDTHS)))


def _width(sheet: Sheet, columns: int) -> float:
    most = max((len(categories(p)) for p in sheet.panels if isinstance(p, Chart)), default=0)
    return min(max(_WIDTHS[columns - 1], columns * _PER_CATEGORY * most), _WIDTHS[-1])


def _draw(panels: Sequence[_Panel]) -> None:
    series = [s for p in panels for s in getattr(p.what, "series", getattr(p.what, "strokes", ()))]
    numbers = numbers_of((s.label, s.colour) for s in series)
    backdrops: dict[tuple[str, str | None], Backdrop] = {}
    clouds = [p.what for p in panels if isinstance(p.what, Cloud)]
    for p in panels:
        if isinstance(p.what, Chart):
            p.keys = draw_chart(p.axes, p.what, numbers, p.size)
        elif isinstance(p.what, Map):
            p.keys = draw_map(p.axes, p.what, numbers, p.size[0])
        else:
            which = p.what.dataset, p.what.label
            if which not in backdrops:
                backdrops[which] = backdrop_of([c for c in clouds if (c.dataset, c.label) == which])
            p.keys = draw_cloud(p.axes, p.what, backdrops[which], p.size[0])


def _resize(rows: Sequence[Sequence[_Panel]], widths: Sequence[float], figure: Figure) -> None:
    """Set the width of all axes, and heights that match within each row."""
    across, up = figure.get_size_inches()
    for row, width in zip(rows, widths, strict=True):
        planes = [_plane_height(p.what, width) for p in row if not isinstance(p.what, Chart)]
        height = max(planes) if planes else min(max(_SLOPE * width, _LOWEST), _HIGHEST)
        for p in row:
            p.size = width, height if isinstance(p.what, Chart) else _plane_height(p.what, width)
            p.axes.set_position((0, 0, width / across, p.size[1] / up))


def _plane_height(what: Cloud | Map, width: float) -> float:
    if isinstance(what, Cloud):
        return width
    left, bottom, right, top = what.window
    return width * min((top - bottom) / (right - left), 1.6)


def _measure(panels: Sequence[_Panel], renderer: Any) -> None:
    dpi = renderer.dpi
    for p in panels:
        p.axes.apply_aspect()
        outer, inner = p.axes.get_tightbbox(renderer), p.axes.get_window_extent(renderer)
        assert outer is not None, "visible axes have an extent"
        pixels = (inner.x0 - outer.x0, inner.y0 - outer.y0, outer.x1 - inner.x1, outer.y1 - inner.y1)
        left, bottom, right, top = (max(0.0, size / dpi) for size in pixels)
        p.margins = left, bottom, right, top


def _side_margins(rows: Sequence[Sequence[_Panel]]) -> list[tuple[float, float]]:
    """The widest text on the left and right of the axes in each column."""
    return [
        (max(r[c].margins[0] for r in rows if c < len(r)), max(r[c].margins[2] for r in rows if c < len(r)))
        for c in range(len(rows[0]))
    ]


def _inner_width(rows: Sequence[Sequence[_Panel]], width: float) -> float:
    taken = 2 * _EDGE + (len(rows[0]) - 1) * _GAP + sum(left + right for left, right in _side_margins(rows))
    return (width - taken) / len(rows[0])


def _stack(figure: Figure, rows: Sequence[Sequence[_Panel]], width: float, renderer: Any) -> None:
    """Place everything from the top down, and set the figure's height."""
    lefts, x = [], _EDGE
    for left, right in _side_margins(rows):
        lefts.append(x + left)
        x += left + rows[0][0].size[0] + right + _GAP

    y = _EDGE
    places: list[tuple[_Panel, float, float]] = []
    legends: _Legends = []
    everyone = [p for row in rows for p in row]
    shared = len(_neighbours(everyone)) == 1
    for row in rows:
        y += max(p.margins[3] for p in row)
        places += [(p, lefts[i], y) for i, p in enumerate(row)]
        y += max(p.size[1] for p in row)
        y += max(p.margins[1] + p.size[1] for p in row) - max(p.size[1] for p in row) + _EDGE
        if not shared:
            y += _legends(figure, row, lefts, y, renderer, legends)
        y += _GAP / 2 * (row is not rows[-1])
    if shared:
        y += _legend(figure, everyone, width / 2, y, width - 2 * _EDGE, renderer, legends)

    height = y + _EDGE / 2
    figure.set_size_inches(width, height)
    for p, left, top in places:
        p.axes.set_position((left / width, 1 - (top + p.size[1]) / height, p.size[0] / width, p.size[1] / height))
    for legend, middle, top in legends:
        legend.set_bbox_to_anchor((middle / width, 1 - top / height), figure.transFigure)


def _legends(
    figure: Figure,
    row: Sequence[_Panel],
    lefts: Sequence[float],
    y: float,
    renderer: Any,
    legends: list[tuple[Legend, float, float]],
) -> float:
    """Add a legend below each group of neighbours in a row that share their series; returns the largest height."""
    highest, at = 0.0, 0
    for group in _neighbours(row):
        first, last = (
            lefts[at] - group[0].margins[0],
            lefts[at + len(group) - 1] + group[-1].size[0] + group[-1].margins[2],
        )
        at += len(group)
        height = _legend(figure, group, (first + last) / 2, y, last - first + _GAP, renderer, legends)
        highest = max(highest, height)
    return highest


def _neighbours(panels: Sequence[_Panel]) -> list[list[_Panel]]:
    """Group neighbouring panels so that one panel of each group has the series of all its others."""
    groups: list[list[_Panel]] = []
    for panel in panels:
        candidates = [*groups[-1], panel] if groups else [panel]
        largest = max((p.keys.keys() for p in candidates), key=len)
        if groups and all(p.keys.keys() <= largest for p in candidates):
            groups[-1].append(panel)
        else:
            groups.append([panel])
    return groups


def _legend(
    figure: Figure,
    group: Sequence[_Panel],
    middle: float,
    y: float,
    width: float,
    renderer: Any,
    legends: list[tuple[Legend, float, float]],
) -> float:
    """Add a legend with as few lines as fit; returns its height, 0 if there is nothing to show."""
    keys = {key: handle for p in group for key, handle in p.keys.items()}
    if not keys:
        return 0.0
    for legend in _trials(figure, list(keys.values())):
        box = legend.get_window_extent(renderer)
        if box.width / renderer.dpi <= width:
            break
    legends.append((legend, middle, y))
    return float(box.height / renderer.dpi)


def _trials(figure: Figure, handles: list[Any]) -> Iterator[Legend]:
    """The same legend with one line, two lines, …; removes each before it makes the next."""
    for lines in range(1, len(handles) + 1):
        legend = figure.legend(
            handles=handles,
            loc="upper center",
            ncols=math.ceil(len(handles) / lines),
            frameon=False,
            fontsize=TEXT - 1,
            labelcolor=LIGHT.quiet,
            borderaxespad=0.0,
            borderpad=0.1,
            handletextpad=0.5,
            columnspacing=1.6,
        )
        yield legend
        if lines < len(handles):
            legend.remove()
