"""What the figures share: frames, exact regions, samples, the legend, and saving a figure.

Exact regions have the colour of the exact density (the sampled class) or are grey (the other classes). They are
highest-density regions, so a border encloses the same share of the mass in every panel. Colours are those of
:mod:`toyguide.palette`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from toyguide.datasets import Dataset
from toyguide.errors import unknown
from toyguide.fields import Field
from toyguide.files import writing
from toyguide.geometry.contours import in_chunks, log_density_levels
from toyguide.geometry.planes import Plane, Window, window_of
from toyguide.metrics import are_outliers
from toyguide.palette import LIGHT

__all__ = [
    "FORMATS",
    "TEXT",
    "Region",
    "draw_points",
    "draw_regions",
    "draw_samples",
    "fine_grid",
    "frame_panel",
    "grid_ticks",
    "legend_beneath",
    "log_density_on",
    "region_key",
    "regions_of",
    "row_of_squares",
    "sample_keys",
    "save",
    "write_caption",
    "write_title",
]

FORMATS = (".png", ".svg", ".pdf")

_REGIONS = {"class": LIGHT.density["exact"], "others": LIGHT.region}

TEXT = 9.0  # points
_FINE = 400  # grid points along an axis
_COARSE = 100
_REGION = 0.99  # share of the mass inside a drawn region

_GAP, _EDGE = 0.10, 0.10  # inches
_HALO = 0.7  # points added to a dot's diameter
_TRIANGLE = 2.2  # area of an outlier's triangle, in dots


@dataclass(frozen=True)
class Region:
    """A highest-density region, as a grid of log-densities and the level at its border."""

    colour: str
    log_density: Tensor
    level: float


def regions_of(data: Dataset, label: str | None, plane: Plane, window: Window) -> list[Region]:
    """The projected exact regions: that of all other classes, if there are any, then that of the sampled class."""
    fields = {"class": data.field(label)}
    if not data.mask(label).all():
        fields = {"others": data.components.mixture.subset(~data.mask(label)), **fields}
    flat = Plane(torch.zeros(2), torch.eye(2))
    regions = []
    for colour, field in fields.items():
        marginal = plane.marginal(field)
        level = float(log_density_levels(marginal, 0.0, [_REGION], flat, window_of(data, plane), n=_COARSE))
        regions.append(Region(_REGIONS[colour], _near(marginal, window, level), level))
    return regions


def _near(field: Field, window: Window, level: float) -> Tensor:
    """The log-density at noise level 0 on the fine grid, evaluated only near the region above a level.

    A coarse grid finds where that is: its cells are no larger than a few standard deviations of the data. Elsewhere the
    values are 50 below the level.
    """
    below = level - 50
    coarse = log_density_on(field, window.grid(_COARSE), 0.0)
    wide = torch.nn.functional.max_pool2d(coarse[None], 3, stride=1, padding=1)[0] > below
    near = torch.nn.functional.interpolate(wide[None, None].float(), size=(_FINE, _FINE))[0, 0] > 0
    values = torch.full((_FINE, _FINE), below)
    values[near] = log_density_on(field, fine_grid(window)[near], 0.0)
    return values


def fine_grid(window: Window, device: torch.device | str = "cpu") -> Tensor:
    """The grid for drawing densities."""
    return window.grid(_FINE, device=device)


def log_density_on(field: Field, x: Tensor, sigma: float) -> Tensor:
    return in_chunks(lambda part: field.log_density(part, sigma), x)


def row_of_squares(panels: int, foot: float, side: float = 1.92, head: float = 0.27) -> tuple[Figure, list[Axes]]:
    """A row of square panels ``side`` inches wide, with ``head`` inches above for titles and ``foot`` inches below."""
    width = 2 * _EDGE + panels * side + (panels - 1) * _GAP
    height = head + side + foot + _EDGE
    figure = Figure(figsize=(width, height), facecolor="white")
    places = [(_EDGE + i * (side + _GAP), _EDGE + foot) for i in range(panels)]
    return figure, [figure.add_axes((x / width, y / height, side / width, side / height)) for x, y in places]


def frame_panel(axes: Axes, window: Window, title: str) -> None:
    axes.set(xlim=(window.low[0], window.high[0]), ylim=(window.low[1], window.high[1]), aspect="equal")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(linewidth=0.6, color=LIGHT.quiet)
    write_title(axes, title)


def write_title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=TEXT, color=LIGHT.ink, pad=4)


def write_caption(axes: Axes, text: str) -> None:
    axes.text(0.5, -0.03, text, transform=axes.transAxes, ha="center", va="top", fontsize=TEXT - 1, color=LIGHT.quiet)


def draw_regions(axes: Axes, regions: Sequence[Region], window: Window) -> None:
    u, v = grid_ticks(window)
    for region in regions:
        level, top = region.level, float(region.log_density.max())
        if top <= level:
            continue  # outside the window
        axes.contourf(u, v, region.log_density, levels=[level, top + 1], colors=[to_rgba(region.colour, 0.3)])
        axes.contour(
            u, v, region.log_density, levels=[level], colors=[region.colour], linewidths=0.6, linestyles="solid"
        )


def grid_ticks(window: Window) -> tuple[Tensor, Tensor]:
    grid = fine_grid(window)
    return grid[0, :, 0], grid[:, 0, 1]


def draw_samples(axes: Axes, x: Tensor, data: Dataset, label: str | None, plane: Plane, size: float = 0.9) -> None:
    draw_points(axes, plane.project(x), are_outliers(x, data, label), size)


def draw_points(axes: Axes, uv: Tensor, outside: Tensor, size: float) -> dict[str, PathCollection]:
    """Draw samples as dots and outliers as triangles, with halos below all of them.

    Args:
        axes: The axes to draw on.
        uv: Coordinates, with shape ``(n, 2)``.
        outside: Which are outliers, with shape ``(n,)``.
        size: The area of a dot, in square points.

    Returns:
        The scatters by name, outliers with their halos below them.
    """
    halo = (math.sqrt(size) + _HALO) ** 2 / size
    looks = {
        "halo": (~outside, 1.0, halo, LIGHT.halo, "o"),
        "samples": (~outside, 1.0, 1.0, LIGHT.sample, "o"),
        "outside halo": (outside, _TRIANGLE, halo, LIGHT.halo, "^"),
        "outside": (outside, _TRIANGLE, 1.0, LIGHT.outlier, "^"),
    }
    found = {}
    for name, (kept, shape, margin, colour, marker) in looks.items():
        look: dict[str, Any] = {"s": size * shape * margin, "color": colour, "marker": marker, "label": name}
        found[name] = axes.scatter(*uv[kept].T, linewidths=0, rasterized=True, zorder=3, **look)
    return found


def sample_keys() -> list[Line2D]:
    looks = (
        ("samples", "o", 3.5, LIGHT.sample),
        ("outside the exact 99 % region", "^", 4.5, LIGHT.outlier),
    )
    return [Line2D([], [], marker=m, ls="", ms=size, mew=0, color=c, label=text) for text, m, size, c in looks]


def region_key(colour: str, text: str) -> Patch:
    return Patch(facecolor=to_rgba(_REGIONS[colour], 0.3), edgecolor=_REGIONS[colour], linewidth=0.6, label=text)


def legend_beneath(figure: Figure, keys: Sequence[Any], columns: int) -> None:
    figure.legend(
        handles=keys,
        loc="lower center",
        ncols=columns,
        frameon=False,
        fontsize=TEXT - 1,
        labelcolor=LIGHT.quiet,
        borderaxespad=0.2,
        handletextpad=0.4,
        columnspacing=1.6,
    )


def save(figure: Figure, path: str | Path, dpi: int = 200) -> None:
    """Write a figure, whole or not at all. The same figure gives the same file."""
    suffix = Path(path).suffix
    if suffix not in FORMATS:
        raise unknown(f"format of figure {str(path)!r}", suffix, FORMATS)
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)
    with writing(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "toyguide", "pdf.fonttype": 42}):
        figure.savefig(temporary, dpi=dpi, metadata=undated)
