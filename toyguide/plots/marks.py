"""Labels of a chart's marks, each next to its line where it covers as little as possible."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from toyguide.palette import LIGHT
from toyguide.plots.charts import positions
from toyguide.plots.parts import TEXT
from toyguide.studies.charts import Chart, Mark

__all__ = ["label_marks"]

_ALONG = (0.985, 0.015, 0.75, 0.25, 0.5)  # of the axis, in order of preference
_OFF = 3.0  # pixels from the line
_STEP = 3.0  # pixels between the points that stand for a line


def label_marks(axes: Axes, chart: Chart, renderer: Any) -> None:
    """Write the labels. The axes must have their final size."""
    box = axes.get_window_extent(renderer)
    drawn = np.concatenate([*_drawn(axes, chart), np.empty((0, 2))])
    lines = [_across(axes, mark, box) for mark in chart.marks]
    placed: list[Bbox] = []
    for i, mark in enumerate(chart.marks):
        if not mark.text:
            continue
        others = [line for j, line in enumerate(lines) if j != i]
        places = list(_places(axes, mark, box, renderer))

        def covered(place: tuple[dict[str, Any], Bbox], others: Any = others) -> float:
            where = place[1]
            outside = not (
                box.x0 - 1 <= where.x0 and where.x1 <= box.x1 + 1 and box.y0 <= where.y0 <= where.y1 <= box.y1
            )
            overlaps = sum(where.overlaps(other) for other in placed)
            return 1e6 * outside + 1e3 * overlaps + _inside(where.padded(1), np.concatenate([drawn, *others]))

        chosen, where = min(places, key=covered)
        _write(axes, mark, **chosen)
        placed.append(where)


def _write(axes: Axes, mark: Mark, **where: Any) -> Text:
    return axes.text(
        s=mark.text,
        transform=axes.transAxes,
        fontsize=TEXT - 2,
        color=LIGHT.quiet,
        path_effects=[withStroke(linewidth=2, foreground="white")],
        zorder=6,
        **where,
    )


def _places(axes: Axes, mark: Mark, box: Bbox, renderer: Any) -> Iterator[tuple[dict[str, Any], Bbox]]:
    """Possible places of a label: settings of the text, and the box that it would fill."""
    upright = mark.x is not None
    trial = _write(axes, mark, x=0, y=0, rotation=90 if upright else 0)
    size = trial.get_window_extent(renderer).size
    trial.remove()
    line = _pixel(axes, mark)
    start, length = (box.y0, box.height) if upright else (box.x0, box.width)
    along_size, across_size = size[::-1] if upright else size
    for along, after in product(_ALONG, (True, False)):
        first = start + along * (length - along_size)
        second = line + _OFF if after else line - _OFF - across_size
        x, y = (second, first) if upright else (first, second)
        yield _pinned(axes, x, y, upright), Bbox.from_bounds(x, y, *size)


def _pinned(axes: Axes, x: float, y: float, upright: bool) -> dict[str, Any]:
    u, v = axes.transAxes.inverted().transform((x, y))
    return {"x": u, "y": v, "rotation": 90 if upright else 0, "ha": "left", "va": "bottom"}


def _pixel(axes: Axes, mark: Mark) -> float:
    """The pixel of a mark's line, along x or y. The other coordinate does not matter; 1 exists on all scales."""
    if mark.x is not None:
        return float(axes.transData.transform((mark.x, 1.0))[0])
    return float(axes.transData.transform((1.0, float(mark.y or 0.0)))[1])


def _across(axes: Axes, mark: Mark, box: Bbox) -> np.ndarray[Any, Any]:
    """Points along a mark's line, in pixels."""
    if mark.x is not None:
        up = np.arange(box.y0, box.y1, _STEP)
        return np.stack([np.full_like(up, _pixel(axes, mark)), up], -1)
    along = np.arange(box.x0, box.x1, _STEP)
    return np.stack([along, np.full_like(along, _pixel(axes, mark))], -1)


def _drawn(axes: Axes, chart: Chart) -> Iterator[np.ndarray[Any, Any]]:
    """Points along all series, in pixels."""
    for i, series in enumerate(chart.series):
        x, y = positions(chart, i), np.asarray(series.y, dtype=float)
        corners = axes.transData.transform(np.stack([x, y], -1))
        corners = corners[np.isfinite(corners).all(-1)]
        joined = series.style in ("line", "dashed")
        yield _joined(corners) if joined else corners
        if (series.low is not None and series.high is not None) or series.style == "bars":
            low, high = (0 * y, y) if series.low is None or series.high is None else (series.low, series.high)
            if series.style == "bars":
                low, high = np.minimum(low, 0 * y), np.maximum(high, y)
            for a, b, c in zip(x, low, high, strict=True):
                ends = axes.transData.transform([[a, b], [a, c]])
                if np.isfinite(ends).all():
                    yield _joined(np.clip(ends, -1e4, 1e4))


def _joined(corners: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Points along a polygon."""
    parts = [corners]
    for a, b in pairwise(corners):
        count = int(np.hypot(*(b - a)) / _STEP)
        parts.append(a + (b - a) * np.linspace(0, 1, count + 2)[:, None])
    return np.concatenate(parts)


def _inside(box: Bbox, points: np.ndarray[Any, Any]) -> int:
    x, y = points.T
    return int(((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).sum())
