"""A study's chart: lines, points and bars with their intervals, on axes that include all of them.

A series has the same colour and the same marker in all panels of a figure, so that either identifies it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogFormatterMathtext, LogLocator, MaxNLocator, NullLocator

from toyguide.palette import LIGHT, SERIES
from toyguide.plots.parts import TEXT
from toyguide.studies.charts import Chart, Series

__all__ = ["MARKERS", "Key", "Keys", "categories", "colour_of", "draw_chart", "numbers_of", "positions"]

Key = tuple[str, int]
"""A legend entry: its label and the number of its colour."""
Keys = dict[Key, Any]
"""matplotlib's handles by legend entry."""

MARKERS = "os^Dv<>"
_MOST_MARKERS = 30  # on a line
_PAD = 0.05  # margin around the data, as a share of the axis
_BARS = 0.8  # width of a category's bars, as a share of the category's
_LETTER = 0.068  # mean width of a letter, in inches
_DECADE_TICKS = ((1.0, 2.0, 3.0, 5.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))
_TICK_SPACING = {"x": 0.42, "y": 0.25}  # least distance of ticks, in inches


def colour_of(number: int) -> str:
    """The colour with this number."""
    return SERIES[number % len(SERIES)]


def numbers_of(named: Iterable[tuple[str, int | None]]) -> dict[str, int]:
    """A colour number for each label: the given one, or the next that is not taken, in order of appearance."""
    named = list(named)
    numbers = {label: colour for label, colour in reversed(named) if colour is not None}
    free = (n for n in range(len(named) + len(numbers)) if n not in set(numbers.values()))
    return {label: numbers[label] if label in numbers else next(free) for label in dict.fromkeys(n[0] for n in named)}


def draw_chart(axes: Axes, chart: Chart, numbers: dict[str, int], size: tuple[float, float]) -> Keys:
    """Draw a chart, except for the labels of its marks.

    Args:
        axes: The axes to draw on.
        chart: The chart.
        numbers: The number of each label's colour.
        size: The approximate width and height of the axes in inches; decides on the number of ticks.
    """
    _set_axes(axes, chart, size)
    keys: Keys = {}
    for i, series in enumerate(chart.series):
        number = numbers[series.label] if series.colour is None else series.colour
        handle = _draw_series(axes, series, positions(chart, i), number, _bar_width(chart))
        keys.setdefault((series.label, number), handle)
    for mark in chart.marks:
        line: dict[str, Any] = {"color": LIGHT.quiet, "linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 1.5}
        if mark.x is not None:
            axes.axvline(mark.x, **line)
        if mark.y is not None:
            axes.axhline(mark.y, **line)
    if not any(np.isfinite(s.y).any() for s in chart.series):
        where: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
        axes.text(0.5, 0.5, "nothing finite", color=LIGHT.quiet, fontsize=TEXT - 1, **where)
    return {key: handle for key, handle in keys.items() if key[0]}


def categories(chart: Chart) -> list[str]:
    """The categories on the horizontal axis of a chart with texts or bars; none for one with numbers."""
    if not any(s.style == "bars" or any(isinstance(x, str) for x in s.x) for s in chart.series):
        return []
    return list(dict.fromkeys(_name(x) for s in chart.series for x in s.x))


def positions(chart: Chart, index: int) -> np.ndarray[Any, Any]:
    """The horizontal positions of a series' values; bars and points of several series stand side by side."""
    series, names = chart.series[index], categories(chart)
    if not names:
        return np.asarray(series.x, dtype=float)
    at = np.array([names.index(_name(x)) for x in series.x], dtype=float)
    if series.style not in ("bars", "points"):
        return at
    peers = [i for i, s in enumerate(chart.series) if s.style == series.style]
    return at + (peers.index(index) - (len(peers) - 1) / 2) * _BARS / len(peers)


def _wrap_categories(axes: Axes, names: list[str], width: float) -> None:
    """Wrap the category labels to their width; slant them if a single word is too long."""
    letters = max(1, int((width / len(names) - 0.06) / _LETTER * TEXT / (TEXT - 1)))
    if max(len(word) for name in names for word in name.split()) <= letters:
        texts = ["\n".join(line for part in name.split("\n") for line in wrap(part, letters)) for name in names]
        axes.set_xticklabels(texts)
    else:
        axes.set_xticklabels([" ".join(n.split()) for n in names], rotation=30, ha="right", rotation_mode="anchor")


def _extent(chart: Chart) -> tuple[tuple[float, float], tuple[float, float]]:
    """The lower left and the upper right corner of a chart's data, with a margin."""
    across = [positions(chart, i) for i in range(len(chart.series))]
    x = _finite([*across, [m.x for m in chart.marks if m.x is not None]], chart.x_scale)
    up = [v for s in chart.series for v in (s.y, s.low, s.high) if v is not None]
    y = _finite([*up, [m.y for m in chart.marks if m.y is not None]], chart.y_scale)
    left, right = _padded(x, chart.x_scale)
    bottom, top = _padded(y, chart.y_scale)
    if any(s.style == "bars" for s in chart.series) and chart.y_scale == "linear":
        bottom, top = (0.0 if y.size == 0 or y.min() >= 0 else bottom), (0.0 if y.size and y.max() <= 0 else top)
    return (left, bottom), (right, top)


def _draw_series(axes: Axes, series: Series, x: Any, number: int, width: float) -> Any:
    """Draw a series and return its handle for the legend."""
    colour, marker, y = colour_of(number), MARKERS[number % len(MARKERS)], np.asarray(series.y, dtype=float)
    low, high = (np.asarray([] if v is None else v, dtype=float) for v in (series.low, series.high))
    look: dict[str, Any] = {"color": colour, "label": series.label}
    if series.style == "bars":
        axes.bar(x, y, width, zorder=2, **look)
        if len(low):
            axes.vlines(x, low, high, color=LIGHT.ink, linewidth=0.9, zorder=3)
        return Patch(**look)
    if series.style == "dashed":
        look |= {"linewidth": 1.2, "linestyle": (0, (5, 2))}
        axes.plot(x, y, zorder=2, **look)
        return Line2D([], [], **look)
    scattered = series.style == "points"
    look |= {"marker": marker, "markersize": 5.0 if scattered else 4.2, "linestyle": "none" if scattered else "-"}
    look |= {"linewidth": 1.3, "markeredgecolor": "white", "markeredgewidth": 0.0 if scattered else 0.4}
    axes.plot(x, y, markevery=1 + len(y) // _MOST_MARKERS, zorder=3, **look)
    if len(low) and not scattered and (np.diff(x) > 0).all():
        axes.fill_between(x, low, high, color=colour, alpha=0.17, linewidth=0, zorder=1.8)
    elif len(low):
        axes.vlines(x, low, high, color=colour, linewidth=1.0, zorder=2.5)
    return Line2D([], [], **look)


def _bar_width(chart: Chart) -> float:
    return _BARS / max(1, sum(s.style == "bars" for s in chart.series))


def _set_axes(axes: Axes, chart: Chart, size: tuple[float, float]) -> None:
    """Set limits, scales, ticks and labels, all of which follow from the chart."""
    for side, spine in axes.spines.items():
        spine.set(linewidth=0.6, color=LIGHT.quiet, visible=side in ("left", "bottom"))
    axes.tick_params(labelsize=TEXT - 1, labelcolor=LIGHT.quiet, color=LIGHT.quiet, width=0.6, length=3)
    axes.set_autoscale_on(False)
    names = categories(chart)
    low, high = _extent(chart)
    axes.set(xlim=(-0.5, len(names) - 0.5) if names else (low[0], high[0]), ylim=chart.y_range or (low[1], high[1]))
    axes.set(xscale="linear" if names else chart.x_scale, yscale=chart.y_scale)
    _set_ticks(axes, "y", chart.y_scale, size[1])
    if names:
        axes.xaxis.set_major_locator(FixedLocator(range(len(names))))
        axes.tick_params(axis="x", length=0)
        _wrap_categories(axes, names, size[0])
    else:
        _set_ticks(axes, "x", chart.x_scale, size[0])
    axes.set_title("\n".join(wrap(chart.title, _letters(size[0] + 0.4))), fontsize=TEXT, color=LIGHT.ink, pad=5)
    style: dict[str, Any] = {"fontsize": TEXT - 1, "color": LIGHT.quiet}
    axes.set_xlabel("\n".join(wrap(chart.x_label, _letters(size[0]))), **style)
    axes.set_ylabel("\n".join(wrap(chart.y_label, _letters(size[1]))), **style)


def _name(x: str | float) -> str:
    return x if isinstance(x, str) else f"{x:g}"


def _letters(inches: float) -> int:
    return max(8, int(inches / _LETTER))


def _finite(parts: Iterable[Any], scale: str) -> np.ndarray[Any, Any]:
    values = np.concatenate([np.asarray(p, dtype=float).ravel() for p in parts])
    return values[np.isfinite(values) & (values > 0 if scale == "log" else True)]


def _padded(values: np.ndarray[Any, Any], scale: str) -> tuple[float, float]:
    if not values.size:
        return (0.1, 1.0) if scale == "log" else (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if scale == "log":
        margin = max((high / low) ** _PAD, 1.1)
        return low / margin, high * margin
    margin = _PAD * (high - low) or _PAD * abs(high) or 1.0
    return low - margin, high + margin


def _set_ticks(axes: Axes, name: str, scale: str, inches: float) -> None:
    axis = getattr(axes, f"{name}axis")
    low, high = getattr(axes, f"get_{name}lim")()
    most = max(2, int(inches / _TICK_SPACING[name]))
    axis.set_minor_locator(NullLocator())
    if scale != "log":
        axis.set_major_locator(MaxNLocator(min(most, 7), steps=[1, 2, 2.5, 5, 10]))
        return
    ticks = next((t for t in _log_ticks(low, high) if len(t) <= most), None)
    if ticks is None:
        axis.set_major_locator(LogLocator(numticks=most))
    else:
        axis.set_major_locator(FixedLocator(ticks) if len(ticks) > 1 else MaxNLocator(min(most, 5)))
    plain = low >= 5e-4 and high <= 2e4
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}") if plain else LogFormatterMathtext())


def _log_ticks(low: float, high: float) -> Iterator[list[float]]:
    """Ticks between two ends, from many per decade to one."""
    decades = [10.0**k for k in range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)]
    for digits in _DECADE_TICKS:
        yield [d * k for d in decades for k in digits if low <= d * k <= high]
