"""A league's figure: outliers against coverage, a point with its intervals for each rule, and the front."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from toyguide.guidance import FAMILIES
from toyguide.palette import LIGHT
from toyguide.plots.charts import MARKERS, colour_of
from toyguide.plots.parts import TEXT

__all__ = ["draw_arena"]

_SIZE = (7.2, 5.0)  # inches
_YARDSTICKS = ("none", "cfg")  # labelled as well as the front
_AROUND = tuple(
    product((4.0, -4.0, 12.0, -12.0), (4.0, -4.0, 12.0, -12.0))
)  # from a point to its label, in text points
_DOT = 5.0  # half a marker's width in pixels


def draw_arena(arena: Mapping[str, Any]) -> Figure:
    """Draw an arena's standings: a point for each rule at the setting that was chosen, labelled on the front.

    Where the class has a single branch, and so nothing to cover, the horizontal axis is the distance to the truth.

    Args:
        arena: One of ``standings(league)["arenas"]``.
    """
    figure = Figure(figsize=_SIZE, facecolor="white", layout="constrained")
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.add_subplot()
    across = "coverage" if arena["branched"] else "distance_there"
    shown = {key: s for key, s in arena["rules"].items() if across in s["numbers"]}
    families = [*FAMILIES, *sorted({s["family"] for s in shown.values()} - set(FAMILIES))]
    ends = (0.0, 1.0) if arena["branched"] else (1e-4, math.inf)
    for number, family in enumerate(families):
        own = [s["numbers"] for s in shown.values() if s["family"] == family]
        if own:
            _draw_family(axes, [n[across] for n in own], [n["outliers"] for n in own], family, number, ends)
    points = {key: (s["numbers"][across][0], s["numbers"]["outliers"][0]) for key, s in shown.items()}
    corners = [points[key] for key in arena["front"]]
    axes.plot(
        *zip(*corners, strict=True), color=LIGHT.quiet, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1, label="front"
    )
    axes.set(
        title=arena["title"],
        xlabel="coverage" if arena["branched"] else "sliced Wasserstein distance to the truth",
        ylabel="outliers",
        xscale="linear" if arena["branched"] else "log",
    )
    axes.set_yscale("symlog", linthresh=0.01)
    axes.set_ylim(bottom=0.0)
    axes.tick_params(labelsize=TEXT - 1, labelcolor=LIGHT.quiet, color=LIGHT.quiet)
    for side, spine in axes.spines.items():
        spine.set(linewidth=0.6, color=LIGHT.quiet, visible=side in ("left", "bottom"))
    axes.axhline(0.01, color=LIGHT.quiet, linewidth=0.6, linestyle=(0, (1, 2)), zorder=0.9, label="exact samples")
    axes.legend(fontsize=TEXT - 2, frameon=False, labelcolor=LIGHT.quiet)
    figure.draw(renderer)
    _label(axes, points, [*arena["front"], *(key for key in _YARDSTICKS if key in points)], renderer)
    return figure


def _draw_family(
    axes: Axes, x: list[list[float]], y: list[list[float]], family: str, number: int, ends: tuple[float, float]
) -> None:
    """Draw one family's points, and of their intervals what lies between the ends of the horizontal axis's values."""
    least, most = ends
    look: dict[str, Any] = {"color": colour_of(number), "zorder": 2}
    for (mean_x, low_x, high_x), (mean_y, low_y, high_y) in zip(x, y, strict=True):
        axes.hlines(mean_y, max(low_x, least), min(high_x, most), linewidth=0.8, alpha=0.6, **look)
        axes.vlines(mean_x, max(low_y, 0.0), high_y, linewidth=0.8, alpha=0.6, **look)
    axes.plot([v[0] for v in x], [v[0] for v in y], MARKERS[number % len(MARKERS)], markersize=5, label=family, **look)


def _label(axes: Axes, points: Mapping[str, tuple[float, float]], keys: list[str], renderer: Any) -> None:
    """Name points where their names cover no other point and no other name; those without room stay nameless."""
    frame = axes.get_window_extent(renderer)
    taken = [
        Bbox.from_bounds(u - _DOT, v - _DOT, 2 * _DOT, 2 * _DOT)
        for u, v in axes.transData.transform(list(points.values()))
    ]
    for key in dict.fromkeys(keys):
        for right, up in _AROUND:
            text = axes.annotate(
                key,
                points[key],
                (right, up),
                textcoords="offset points",
                ha="left" if right > 0 else "right",
                va="bottom" if up > 0 else "top",
                fontsize=TEXT - 2,
                color=LIGHT.ink,
                path_effects=[withStroke(linewidth=2, foreground="white")],
                zorder=4,
                annotation_clip=False,
            )
            box = text.get_window_extent(renderer)
            if frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1) and not box.count_overlaps(taken):
                taken.append(box)
                break
            text.remove()
