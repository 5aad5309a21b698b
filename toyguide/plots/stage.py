"""Runs in the plane of their dataset, for print: one on axes of your own, or up to four side by side.

    import toyguide as tg

    runs = [tg.Experiment("fractal", "A", rule=rule).run() for rule in ("none", "cfg", "autoguidance")]
    tg.plot.save(tg.plot.compare(runs), "rules.pdf")

Densities are shown by the highest-density regions that hold given shares of what lies in the plane, which makes learned
fields, whose densities are not normalised, comparable with the exact one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from textwrap import shorten, wrap
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import TextPath
from torch import Tensor

from toyguide.datasets import Dataset
from toyguide.datasets.references import resolve
from toyguide.errors import InputError, unknown
from toyguide.experiment import Experiment, Reference, Result
from toyguide.fields import Field
from toyguide.geometry.contours import BAND_SHARES, LINE_SHARES, RATIO_LEVELS, region_levels
from toyguide.geometry.planes import Plane, Window, plane_of, window_of
from toyguide.guidance import ROLES, Role
from toyguide.guidance import rule as make_rule
from toyguide.metrics import are_outliers
from toyguide.palette import LIGHT, PATH_OPACITY, bands, two_sided
from toyguide.plots.parts import (
    TEXT,
    draw_points,
    fine_grid,
    frame_panel,
    grid_ticks,
    legend_beneath,
    log_density_on,
    regions_of,
    row_of_squares,
    sample_keys,
    write_title,
)

__all__ = ["LAYERS", "compare", "draw", "settings_of", "title_of"]

LAYERS = {
    "exact": "the exact density",
    "main": "the density of the sampled field",
    "guide": "the density of the field that is guided away from",
    "ratio": "where the sampled field is likelier than that, and where less likely",
    "exact-lines": "level lines of the exact density",
    "main-lines": "level lines of the sampled field's density",
    "guide-lines": "level lines of the guiding field's density",
    "region": "the outlines of the exact 99 % regions of the data",
    "boundary": "where the likeliest class changes",
    "score": "the score of the sampled field",
    "paths": "the ways of the first samples",
    "samples": "samples, and which of them end outside the exact 99 % region",
}
"""What can be drawn, from the lowest layer to the highest."""

_USUAL = ("exact", "region", "paths", "samples")
_REACH = 4.0  # units of sigma around the data in which levels are found
_COARSE = 160  # grid points each way, for levels
_FAINT = 30.0  # nats below the highest density, where ratios mean nothing
_ARROWS = 21  # each way
_PATHS = 128
_DOT = 3.0  # square points
_LETTER = 0.068  # mean width of a letter, in inches
_KEY = 1.7  # width of a legend's entry, in inches
_MOST = 4
_TOP, _HEADING, _NUMBER, _LINE = 0.10, 0.30, 0.36, 0.20  # the text above the panels, in inches


def draw(
    axes: Axes,
    result: Result,
    layers: Sequence[str] = _USUAL,
    *,
    sigma: float | None = None,
    step: int | None = None,
    plane: Plane | None = None,
    window: Window | None = None,
) -> list[Any]:
    """Draw a run on axes.

        figure, axes = matplotlib.pyplot.subplots()
        axes.legend(handles=tg.plot.draw(axes, result, ("main-lines", "samples"), step=20))

    Args:
        axes: The axes.
        result: The run.
        layers: What to draw: names of ``LAYERS``, in any order. What needs a field that the run does not have, like
            ``guide`` of an unguided one, is left out.
        sigma: The noise level of densities and scores; None for that of the step. Learned fields are shown at the run's
            last level above 0 at least.
        step: The solver step after which samples are drawn, and up to which their paths are; None for the last.
        plane: The plane that samples are projected on and densities are cut by; None for the dataset's.
        window: What is visible of it; None for the dataset's.

    Returns:
        matplotlib's handles for a legend.

    Raises:
        InputError: If there is no such layer or step, or the noise level is negative.
    """
    layers = _checked(layers)
    steps = len(result.x) - 1
    step = steps if step is None else step
    if not 0 <= step <= steps:
        raise InputError(f"step = {step}: expected a whole number from 0 to {steps}")
    sigma = float(result.sigma[step]) if sigma is None else sigma
    if not 0 <= sigma < math.inf:
        raise InputError(f"sigma = {sigma}: expected a noise level from 0")
    data = result.experiment.data
    plane = plane_of(data) if plane is None else plane
    window = window_of(data, plane) if window is None else window
    frame_panel(axes, window, axes.get_title())
    view = _View(axes, result, sigma, step, plane, window)
    return [key for name, paint in _PAINTERS.items() if name in layers for key in paint(view, name)]


def compare(
    results: Sequence[Result],
    layers: Sequence[str] = _USUAL,
    *,
    titles: Sequence[str] | None = None,
    heading: str = "",
    sentence: str = "",
    numbers: Sequence[str] = (),
    sigma: float | None = None,
    step: int | None = None,
    plane: Plane | None = None,
    window: Window | None = None,
) -> Figure:
    """Up to four runs side by side in the same window, with a legend.

        runs = [tg.Experiment("fractal", "A", rule=rule).run() for rule in ("none", "cfg")]
        tg.plot.compare(runs, heading="CFG drops branches", numbers=["coverage 93 % → 37 %"])

    Args:
        results: One to four runs of one dataset.
        layers: What to draw, see :func:`draw`.
        titles: A title for each panel; None for each run's rule and parameters.
        heading: A title above all panels.
        sentence: What is to be seen.
        numbers: The few numbers that carry it, each as it is to be read.
        sigma: See :func:`draw`.
        step: See :func:`draw`.
        plane: See :func:`draw`.
        window: See :func:`draw`.

    Returns:
        A new figure; ``toyguide.plots.save`` writes it as PNG, SVG or PDF.

    Raises:
        InputError: If there are no runs or more than four, they are of several datasets, there are not as many titles,
            or :func:`draw` raises it.
    """
    names = {result.experiment.dataset for result in results}
    if not 1 <= len(results) <= _MOST or len(names) != 1:
        raise InputError(f"{len(results)} runs of {len(names)} datasets: expected 1 to {_MOST} runs of one dataset")
    if titles is not None and len(titles) != len(results):
        raise InputError(f"{len(titles)} titles: expected one for each of the {len(results)} runs")
    side = {1: 5.2, 2: 3.6}.get(len(results), 2.9)
    titles = [title_of(result.experiment) for result in results] if titles is None else titles
    wrapped = [wrap(title, int(side / _LETTER)) for title in titles]
    data = results[0].experiment.data
    plane = plane_of(data) if plane is None else plane  # one object, which what is computed once depends on

    letters = int((len(results) * side) / _LETTER * TEXT / (TEXT + 1))
    above = wrap(sentence, letters)
    head = 0.14 + 0.16 * max(len(title) for title in wrapped)
    top = _HEADING * bool(heading) + _LINE * len(above) + _NUMBER * bool(numbers)
    most = len(layers) + len({"samples", "ratio"} & set(layers))  # entries of the legend
    columns = min(most, max(2, int(len(results) * side / _KEY)))
    foot = 0.08 + 0.17 * math.ceil(most / columns)
    figure, row = row_of_squares(len(results), foot=foot, side=side, head=head + top)
    keys: dict[str, Any] = {}
    for axes, result, title in zip(row, results, wrapped, strict=True):
        for key in draw(axes, result, layers, sigma=sigma, step=step, plane=plane, window=window):
            keys.setdefault(str(key.get_label()), key)
        write_title(axes, "\n".join(title))
    _write_above(figure, heading, above, numbers)
    legend_beneath(figure, list(keys.values()), columns=columns)
    return figure


def title_of(experiment: Experiment) -> str:
    """A run's rule and parameters, in words."""
    return ", ".join([make_rule(experiment.rule).title, *settings_of(experiment)])


def settings_of(experiment: Experiment) -> list[str]:
    """The values of a rule's parameters, and its schedule and the interval that it guides in, if there are such."""
    params = [
        f"{k} = {v:g}" if isinstance(v, float) else f"{k} = {shorten(str(v), 60, placeholder=' …')}"
        for k, v in experiment.params.items()
    ]
    interval = [] if experiment.interval is None else ["{:g} < σ ≤ {:g}".format(*experiment.interval)]
    return params + ([] if experiment.schedule is None else [experiment.schedule]) + interval


@dataclass(frozen=True)
class _View:
    """A run on its axes, at one noise level and step."""

    axes: Axes
    result: Result
    sigma: float
    step: int
    plane: Plane
    window: Window

    @property
    def data(self) -> Dataset:
        return self.result.experiment.data

    @property
    def label(self) -> str | None:
        return self.result.experiment.label

    def surface(self, name: str) -> _Surface | None:
        """The density of the ``exact``, the ``main`` or the ``guide`` field; None if there is no such field."""
        if name == "exact":
            return _surface("exact", self.data, self.label, ROLES["main"], self.sigma, self.plane, self.window)
        experiment, sigma = self.result.experiment, max(self.sigma, float(self.result.sigma[-2]))
        for role in experiment.roles().values():
            if role.kind not in ("classifier", "adapter") and (role.name == "main") == (name == "main"):
                given = experiment.fields[role.name]
                return _surface(given, self.data, self.label, role, sigma, self.plane, self.window)
        return None


@dataclass(frozen=True)
class _Surface:
    """A field's log-density in a window, with the levels and the log-mass that make it comparable with others."""

    field: Field
    values: Tensor  # on the fine grid
    bands: Tensor  # levels, ascending
    lines: Tensor
    mass: float


@lru_cache(maxsize=16)
def _surface(
    given: Reference, data: Dataset, label: str | None, role: Role, sigma: float, plane: Plane, window: Window
) -> _Surface:
    found = resolve(given, data, label, role) if isinstance(given, str) else given
    assert isinstance(found, Field)  # the role is no classifier's
    values = log_density_on(found, plane.embed(fine_grid(window)), sigma)
    # Levels do not depend on what is visible.
    whole = window_of(data, plane).grown(_REACH * sigma)
    coarse = log_density_on(found, plane.embed(whole.grid(_COARSE)), sigma).double()
    cell = whole.size[0] * whole.size[1] / (_COARSE - 1) ** 2
    mass = float(coarse.flatten().logsumexp(0)) + math.log(cell)
    return _Surface(found, values, region_levels(coarse, BAND_SHARES), region_levels(coarse, LINE_SHARES), mass)


def _paint_bands(view: _View, name: str) -> list[Any]:
    surface = view.surface(name)
    if surface is None:
        return []
    colours = bands(LIGHT.density[name], len(BAND_SHARES) + 1)[1:]
    _fill(view, surface.values, surface.bands.tolist(), colours, extend="max")
    return [Patch(color=colours[-2], linewidth=0, label=f"{name} density")]


def _paint_ratio(view: _View, name: str) -> list[Any]:
    main, guide = view.surface("main"), view.surface("guide")
    if main is None or guide is None:
        return []
    ratio = (main.values - main.mass) - (guide.values - guide.mass)
    ratio[main.values < main.values.max() - _FAINT] = 0.0
    low, high = LIGHT.maps[name]
    half = len(RATIO_LEVELS) // 2 + 1
    _fill(view, ratio, RATIO_LEVELS, two_sided((low, high), half), extend="both")
    keys = ((low, "guide likelier"), (high, "main likelier"))
    return [Patch(color=bands(colour, half)[-1], linewidth=0, label=text) for colour, text in keys]


def _fill(view: _View, values: Tensor, levels: Sequence[float], colours: list[str], extend: str) -> None:
    u, v = grid_ticks(view.window)
    filled = view.axes.contourf(u, v, values, levels=levels, colors=colours, extend=extend)
    filled.set_rasterized(True)  # as vectors they take megabytes


def _paint_lines(view: _View, name: str) -> list[Any]:
    field = name.removesuffix("-lines")
    surface = view.surface(field)
    if surface is None:
        return []
    return _outline(view, surface.values, surface.lines.tolist(), f"{field}: 50, 80, 99 %", LIGHT.density[field])


def _outline(view: _View, values: Tensor, levels: Sequence[float], label: str, colour: str, **look: Any) -> list[Any]:
    u, v = grid_ticks(view.window)
    look = {"linewidths": 1.0, "linestyles": "solid", **look}
    view.axes.contour(u, v, values, levels=levels, colors=[colour], **look)
    key = {"linewidth": look["linewidths"], "linestyle": look["linestyles"], "alpha": look.get("alpha")}
    return [Line2D([], [], color=colour, label=label, **key)]


def _paint_region(view: _View, name: str) -> list[Any]:
    *others, own = regions_of(view.data, view.label, view.plane, view.window)
    projected = "" if view.data.dim == 2 else ", projected"
    for region in others:
        _outline(view, region.log_density, [region.level], "", LIGHT.region, linewidths=0.8, alpha=0.45)
    return _outline(view, own.log_density, [own.level], f"exact 99 % region{projected}", LIGHT.region)


def _paint_boundary(view: _View, name: str) -> list[Any]:
    if len(view.data.labels) < 2:
        return []
    posterior = view.data.posterior(view.plane.embed(fine_grid(view.window)), view.sigma)
    keys = []
    for own in range(len(view.data.labels) - (len(view.data.labels) == 2)):
        rest = posterior.clone()
        rest[..., own] = -1
        lead = posterior[..., own] - rest.amax(-1)
        if lead.min() < 0 < lead.max():
            look = {"linewidths": 1.6, "linestyles": "dashed"}
            keys = _outline(view, lead, [0.0], "class boundary", LIGHT.boundary, **look)
    return keys


def _paint_score(view: _View, name: str) -> list[Any]:
    surface = view.surface("main")
    assert surface is not None  # every run has one
    uv = view.window.grid(_ARROWS).flatten(0, 1)
    sigma = max(view.sigma, float(view.result.sigma[-2]))
    with torch.no_grad():
        score = view.plane.project_vectors(surface.field.score(view.plane.embed(uv), sigma))
    size = score.norm(dim=-1, keepdim=True)
    # Lengths follow the square root, so that weak scores can be seen.
    arrows = score / size.clamp(min=1e-12) * (size / size.max()).sqrt() * view.window.size[0] / _ARROWS
    look: dict[str, Any] = {"color": LIGHT.score, "width": 0.003, "minlength": 0}
    view.axes.quiver(*uv.T, *arrows.T, angles="xy", scale_units="xy", scale=1, zorder=2.5, **look)
    key: dict[str, Any] = {"marker": r"$\rightarrow$", "linestyle": "", "markersize": 9, "markeredgewidth": 0}
    return [Line2D([], [], color=LIGHT.score, label="score", **key)]


def _paint_paths(view: _View, name: str) -> list[Any]:
    uv = view.plane.project(view.result.paths()[: view.step + 1, :_PATHS])
    finite = uv[:, uv.isfinite().all(-1).all(0)]
    look: dict[str, Any] = {"colors": LIGHT.path, "linewidths": 0.35, "alpha": PATH_OPACITY}
    view.axes.add_collection(LineCollection(list(finite.transpose(0, 1).numpy()), **look), autolim=False)
    return [Line2D([], [], color=LIGHT.path, linewidth=0.8, alpha=0.7, label="paths")]


def _paint_samples(view: _View, name: str) -> list[Any]:
    x = view.result.paths()
    outside = are_outliers(x[-1], view.data, view.label)
    kept = x[: view.step + 1].isfinite().all(-1).all(0)
    draw_points(view.axes, view.plane.project(x[view.step, kept]), outside[kept], _DOT)
    return sample_keys()


_PAINTERS: dict[str, Callable[[_View, str], list[Any]]] = {
    **dict.fromkeys(("exact", "main", "guide"), _paint_bands),
    "ratio": _paint_ratio,
    **dict.fromkeys(("exact-lines", "main-lines", "guide-lines"), _paint_lines),
    "region": _paint_region,
    "boundary": _paint_boundary,
    "score": _paint_score,
    "paths": _paint_paths,
    "samples": _paint_samples,
}


def _checked(layers: Sequence[str]) -> Sequence[str]:
    if isinstance(layers, str):
        raise InputError(f"layers = {layers!r}: expected a sequence of names, like ('exact', 'samples')")
    for name in layers:
        if name not in LAYERS:
            raise unknown("layer", name, LAYERS)
    return layers


def _write_above(figure: Figure, heading: str, sentence: Sequence[str], numbers: Sequence[str]) -> None:
    """Write a heading, a sentence and numbers from the top of a figure."""
    width, height = figure.get_size_inches()
    y = height - _TOP
    lines = [(heading, _HEADING, TEXT + 4, LIGHT.ink, "bold")] * bool(heading)
    lines += [(line, _LINE, TEXT + 1, LIGHT.quiet, "normal") for line in sentence]
    if numbers:
        row = "      ".join(numbers)
        wide = TextPath((0, 0), row, size=TEXT + 5, prop=FontProperties(weight="bold")).get_extents().width / 72
        share = 0.9 * (width - 2 * _TOP) / wide  # letters take whole pixels, which makes them wider
        lines.append((row, _NUMBER, (TEXT + 5) * min(1.0, share), LIGHT.ink, "bold"))
    for text, space, size, colour, weight in lines:
        place: dict[str, Any] = {"ha": "left", "va": "top", "fontsize": size, "fontweight": weight}
        figure.text(_TOP / width, (y - (space - size / 72) / 2) / height, text, color=colour, **place)
        y -= space
