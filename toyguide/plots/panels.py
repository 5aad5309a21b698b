"""A study's panels of the plane: samples over the exact regions, and maps with strokes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from toyguide.datasets import Dataset, load_dataset
from toyguide.geometry.planes import Plane, Window, plane_of, window_of
from toyguide.metrics import hdr_threshold
from toyguide.palette import LIGHT
from toyguide.plots.charts import Keys, colour_of
from toyguide.plots.parts import (
    TEXT,
    Region,
    draw_regions,
    draw_samples,
    frame_panel,
    region_key,
    regions_of,
    sample_keys,
)
from toyguide.studies.charts import Cloud, Map, Strokes

__all__ = ["Backdrop", "backdrop_of", "draw_cloud", "draw_map"]

_SAMPLE_KEY = -1  # the colour number of legend entries that are no series
_EXACT = 8192  # exact samples that the extent of a region is estimated from
_INSIDE = 0.995  # the least share of the samples within the window, on each axis
_MARGIN = 0.04
_MISSING = "#e3e5e8"
# Purple below 0 and orange above, without the darkest of either: strokes must stand out.
_DIVERGING = LinearSegmentedColormap.from_list(
    "toyguide", colormaps["PuOr_r"](np.linspace(0.15, 0.85, 256)), 256
).with_extremes(bad=_MISSING)
_HALO = (withStroke(linewidth=2.0, foreground="white"),)
_LETTER = 0.068  # mean width of a letter, in inches


@dataclass(frozen=True)
class Backdrop:
    """What all panels of one class of a dataset share.

    Attributes:
        data: The dataset.
        label: The class.
        plane: The plane that samples are projected on.
        window: The visible part of it.
        regions: The exact regions.
    """

    data: Dataset
    label: str | None
    plane: Plane
    window: Window
    regions: Sequence[Region]


def backdrop_of(clouds: Sequence[Cloud]) -> Backdrop:
    """The backdrop of panels of one class: a square around the class's region and nearly all samples."""
    data, label = load_dataset(clouds[0].dataset), clouds[0].label
    plane = plane_of(data)
    whole = window_of(data, plane)
    window = whole if label is None else _square(data, label, plane, whole, [cloud.x for cloud in clouds])
    return Backdrop(data, label, plane, window, regions_of(data, label, plane, window))


def draw_cloud(axes: Axes, cloud: Cloud, backdrop: Backdrop, width: float) -> Keys:
    """Draw samples; the caption counts those that are not finite or lie beyond the frame."""
    data, label, plane, window = backdrop.data, backdrop.label, backdrop.plane, backdrop.window
    frame_panel(axes, window, "\n".join(wrap(cloud.title, int(width / _LETTER))))
    draw_regions(axes, backdrop.regions, window)
    for region in axes.collections:
        region.set_rasterized(True)  # as vectors they take megabytes
    finite = cloud.x.cpu()[cloud.x.cpu().isfinite().all(-1)]
    draw_samples(axes, finite, data, label, plane, size=1.2)
    uv = plane.project(finite)
    beyond = int(((uv < torch.tensor(window.low)) | (uv > torch.tensor(window.high))).any(-1).sum())
    counts = {"diverged": len(cloud.x) - len(finite), "beyond the frame": beyond}
    notes = [cloud.caption, ", ".join(f"{count} {what}" for what, count in counts.items() if count)]
    lines = [line for note in notes for line in wrap(note, int(width / _LETTER * 1.1))]
    axes.set_xlabel("\n".join(lines), fontsize=TEXT - 1, color=LIGHT.quiet)

    projected = "" if data.dim == 2 else ", projected"
    handles = [*sample_keys(), region_key("class", f"{f'class {label}' if label else 'all classes'}, 99 %{projected}")]
    if not data.mask(label).all():
        handles.append(region_key("others", f"other classes, 99 %{projected}"))
    return {(str(handle.get_label()), _SAMPLE_KEY): handle for handle in handles}


def draw_map(axes: Axes, map_: Map, numbers: dict[str, int], width: float) -> Keys:
    """Draw a quantity in colours, with a colour bar, and strokes on top of it."""
    left, bottom, right, top = map_.window
    window = Window((left, bottom), (right, top))
    frame_panel(axes, window, "\n".join(wrap(map_.title, int(width / _LETTER))))
    if map_.values is not None:
        _draw_values(axes, map_, map_.values.detach().cpu().double().numpy())
    keys: Keys = {}
    for strokes in map_.strokes:
        number = numbers[strokes.label] if strokes.colour is None else strokes.colour
        keys.setdefault((strokes.label, number), _draw_strokes(axes, strokes, colour_of(number)))
    return {key: handle for key, handle in keys.items() if key[0]}


def _draw_values(axes: Axes, map_: Map, values: np.ndarray[Any, Any]) -> None:
    left, bottom, right, top = map_.window
    # Values lie at the centres of their pixels, so the outermost pixels reach half a pixel beyond the window.
    du, dv = (right - left) / (values.shape[1] - 1) / 2, (top - bottom) / (values.shape[0] - 1) / 2
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if map_.diverging:
        high = max(abs(low), abs(high))
        low = -high
    colours = _DIVERGING if map_.diverging else colormaps["viridis"].with_extremes(bad=_MISSING)
    image = axes.imshow(
        np.ma.masked_invalid(values),
        origin="lower",
        extent=(left - du, right + du, bottom - dv, top + dv),
        vmin=low,
        vmax=high,
        cmap=colours,
        interpolation="nearest",
        aspect="equal",
        zorder=0,
    )
    axes.set(xlim=(left, right), ylim=(bottom, top))
    key = axes.inset_axes((1.03, 0.0, 0.035, 1.0))
    bar = axes.figure.colorbar(image, cax=key)
    bar.outline.set(linewidth=0.5, edgecolor=LIGHT.quiet)
    bar.locator = MaxNLocator(5)
    bar.update_ticks()
    key.tick_params(labelsize=TEXT - 2, labelcolor=LIGHT.quiet, color=LIGHT.quiet, width=0.5, length=2)
    key.set_ylabel(map_.value_label, fontsize=TEXT - 1, color=LIGHT.quiet)


def _draw_strokes(axes: Axes, strokes: Strokes, colour: str) -> Line2D:
    x, d = (t.detach().cpu().double() for t in (strokes.x, strokes.direction))
    finite = torch.cat([x, d], -1).isfinite().all(-1)
    x, d = x[finite], d[finite]
    if strokes.signed:
        look: dict[str, Any] = {"color": colour, "width": 0.009, "minlength": 0, "path_effects": _HALO, "zorder": 3}
        axes.quiver(*x.T, *d.T, angles="xy", scale_units="xy", scale=1, label=strokes.label, **look)
        arrow: dict[str, Any] = {"marker": r"$\rightarrow$", "linestyle": "", "markersize": 9, "markeredgewidth": 0}
        return Line2D([], [], color=colour, label=strokes.label, **arrow)
    ends = torch.stack([x - d / 2, x + d / 2], 1)
    lines = LineCollection(
        list(ends.numpy()), colors=colour, linewidths=1.3, path_effects=_HALO, zorder=3, label=strokes.label
    )
    axes.add_collection(lines, autolim=False)
    return Line2D([], [], color=colour, linewidth=1.3, label=strokes.label)


def _square(data: Dataset, label: str, plane: Plane, whole: Window, samples: Sequence[Tensor]) -> Window:
    """A square around a class's region and nearly all samples, as far as they lie in the dataset's window."""
    exact = data.field(label).sample(_EXACT, generator=torch.Generator().manual_seed(0))
    exact = exact[data.field(label).log_density(exact, 0.0) >= hdr_threshold(data, label)]
    uv = plane.project(exact)
    lows, highs = [uv.min(0).values], [uv.max(0).values]
    for x in samples:
        seen = plane.project(x.cpu()[x.cpu().isfinite().all(-1)].to(exact.dtype))
        if len(seen):
            lows.append(seen.quantile(1 - _INSIDE, dim=0))
            highs.append(seen.quantile(_INSIDE, dim=0))
    low = torch.stack(lows).min(0).values.maximum(torch.tensor(whole.low, dtype=uv.dtype))
    high = torch.stack(highs).max(0).values.minimum(torch.tensor(whole.high, dtype=uv.dtype))
    half = float((high - low).max()) * (0.5 + _MARGIN)
    u, v = ((low + high) / 2).tolist()
    return Window((u - half, v - half), (u + half, v + half))
