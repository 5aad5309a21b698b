"""Figures as data: what a study shows, independent of how it is drawn.

A :class:`Sheet` is one figure of several panels. ``toyguide.plots`` draws it, so studies do not depend on matplotlib,
and another front end can draw the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from toyguide.studies.rows import Interval

__all__ = ["Chart", "Cloud", "Map", "Mark", "Series", "Sheet", "Strokes", "series"]


@dataclass(frozen=True)
class Series:
    """One line, row of points or set of bars in a chart.

    Attributes:
        label: Its name in the legend.
        x: The positions; texts make the axis categorical.
        y: The values.
        low: The lower ends of their intervals, if any.
        high: The upper ends.
        style: ``line`` (with its points), ``dashed`` (a line without points: a reference, a closed form), ``points``
            or ``bars``.
        colour: A number; series with the same number have the same colour in all panels. None takes the next free one.
    """

    label: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    style: str = "line"
    colour: int | None = None


def series(
    label: str, points: Sequence[tuple[float | str, Interval]], style: str = "line", colour: int | None = None
) -> Series:
    """A series of values with their intervals over seeds."""
    x, found = [p[0] for p in points], [p[1] for p in points]
    low, high = [f.low for f in found], [f.high for f in found]
    return Series(label, x, [f.mean for f in found], low, high, style, colour)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Mark:
    """A thin line across a chart, with a label.

    Attributes:
        text: The label.
        x: The position of a vertical line; or
        y: the position of a horizontal one.
    """

    text: str
    x: float | None = None
    y: float | None = None


@dataclass(frozen=True)
class Chart:
    """A panel with two axes. A scale is ``linear`` or ``log``."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    marks: Sequence[Mark] = ()
    x_scale: str = "linear"
    y_scale: str = "linear"
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Cloud:
    """A panel of samples over the exact 99 % regions, in the dataset's plane.

    Attributes:
        title: Its title.
        dataset: The dataset's name.
        label: The sampled class.
        x: Final samples, with shape ``(n, d)``.
        caption: The text below it.
    """

    title: str
    dataset: str
    label: str | None
    x: Tensor
    caption: str = ""


@dataclass(frozen=True)
class Strokes:
    """Short straight lines at points, in a map.

    Attributes:
        label: Their name in the legend.
        x: Their origins, or their centres if they have no sign, with shape ``(n, 2)``.
        direction: Their directions and lengths in the units of the plane, with shape ``(n, 2)``.
        signed: Whether they are arrows; else lines without a head, such as eigenvectors.
        colour: As in :class:`Series`.
    """

    label: str
    x: Tensor
    direction: Tensor
    signed: bool = True
    colour: int | None = None


@dataclass(frozen=True)
class Map:
    """A panel of a quantity on a rectangle of the plane, with strokes.

    Attributes:
        title: Its title.
        window: Left, bottom, right and top.
        values: On a regular grid from edge to edge, rows rising, with shape ``(rows, columns)``; None for none.
        value_label: The label of their colour bar.
        diverging: Whether the colours are centred on 0.
        strokes: The strokes on top of it.
    """

    title: str
    window: tuple[float, float, float, float]
    values: Tensor | None = None
    value_label: str = ""
    diverging: bool = False
    strokes: Sequence[Strokes] = ()


@dataclass(frozen=True)
class Sheet:
    """One figure.

    Attributes:
        name: The stem of its file.
        panels: Its panels, row by row.
        caption: A description in one or two sentences, shown next to the figure.
        columns: Panels per row; None for a single row.
    """

    name: str
    panels: Sequence[Chart | Cloud | Map]
    caption: str
    columns: int | None = None
