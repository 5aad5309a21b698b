"""Figures for print: the two of the autoguidance paper, and one of any saved run.

Each function returns a matplotlib ``Figure`` of its own; nothing global is touched. What is exact is orange (the class
that is sampled) or grey (the others), drawn as highest-density regions, so that a border means the same share of the
mass everywhere; samples are blue, those outside the exact 99 % region vermillion. The colours are Okabe and Ito's,
which do not depend on telling red from green.

References:
    Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, arXiv 2406.02507, Figures 1 and 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import torch
from torch import Tensor

from toyguide.datasets import Dataset, load_dataset
from toyguide.devices import resolve_device
from toyguide.errors import InputError, unknown
from toyguide.experiment import Experiment, Result
from toyguide.fields import Field, denoised_from_score
from toyguide.files import writing
from toyguide.geometry.contours import in_chunks, log_density_levels, region_levels
from toyguide.geometry.planes import Plane, Window, plane_of, window_of
from toyguide.metrics import hdr_threshold, measure

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle
except ImportError as problem:
    raise InputError(
        "figures need matplotlib, which is not installed: expected pip install 'toyguide[plot]'"
    ) from problem

__all__ = ["FORMATS", "PALETTE", "figure_1", "figure_2", "plot_run", "save"]

FORMATS = (".png", ".svg", ".pdf")

PALETTE = {
    "class": "#e69f00",  # orange: the class that is sampled
    "others": "#9aa0a8",  # grey: the other classes
    "samples": "#1b5fa8",  # blue
    "outside": "#d55e00",  # vermillion
    "main": "#009e73",  # green: the learned density
    "guide": "#b3458a",  # purple: the density that is guided away from
    "ratio": "#0072b2",  # blue: their ratio
    "ink": "#22262b",
    "quiet": "#5d6570",
}

_FRACTAL = {"main": "fractal/main", "uncond": "fractal/uncond", "weak": "fractal/weak"}
_CLASS_A = Window((-0.75, -0.72), (1.45, 1.48))
_CLOSE_UP = Window((0.26, 0.70), (0.80, 1.24))
_SIGMA_MID = 0.03
_REGION = 0.99  # the share of the mass inside the drawn region
_BANDS = (0.99, 0.9, 0.75, 0.5, 0.25)  # shares of the mass in view, from the outermost
_LINES = (0.99, 0.9, 0.5)
_FINE = 400  # grid points along an axis
_COARSE = 100
_PATHS = 128  # trajectories that are drawn of a run

_GAP, _EDGE, _HEAD = 0.10, 0.10, 0.27  # inches
_TEXT = 9.0  # points


def figure_1(device: str = "cpu", n: int = 4096, seed: int = 0) -> Figure:
    """Figure 1 of the autoguidance paper: what five ways to sample one class of the fractal leave behind.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        n: Samples in each panel.
        seed: Of all random numbers.
    """
    runs = {
        "Unguided": _run("none", {}, n, seed),
        "CFG, $w = 4$": _run("cfg", {"w": 4.0}, n, seed),
        "Score scaling, $k = 1.4$": _run("score-scaling", {"k": 1.4}, n, seed),
        "Autoguidance, $w = 3$": _run("autoguidance", {"w": 3.0}, n, seed),
    }
    data = load_dataset("fractal")
    truth = data.field("A").sample(n, generator=torch.Generator().manual_seed(seed)).float()
    panels = {"Ground truth": truth} | {title: e.run(device).x[-1] for title, e in runs.items()}

    figure, row = _row(len(panels), foot=0.40)
    plane = plane_of(data)
    regions = _regions(data, "A", plane, _CLASS_A)
    for axes, letter, (title, x) in zip(row, "abcde", panels.items(), strict=True):
        _frame(axes, _CLASS_A, f"({letter}) {title}")
        _draw_regions(axes, regions, _CLASS_A)
        _draw_samples(axes, x, data, "A", plane)
        found = measure(x, data, "A", resamples=0, seed=seed)
        _caption(axes, f"outliers {found['outliers']:.1%},  coverage {found['coverage']:.0%}")
    row[2].add_patch(
        Rectangle(_CLOSE_UP.low, *_CLOSE_UP.size, fill=False, edgecolor=PALETTE["ink"], linewidth=0.8, zorder=4)
    )
    _legend(
        figure,
        [*_sample_keys(), _region_key("class", "class A, 99 %"), _region_key("others", "class B, 99 %")],
        columns=4,
    )
    return figure


def figure_2(device: str = "cpu", n: int = 4096, seed: int = 0) -> Figure:
    """Figure 2 of the autoguidance paper, a close-up: why guidance pulls samples onto the data.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        n: Trajectories to choose from; those that start in the close-up, not too near to each other, are drawn.
        seed: Of all random numbers.
    """
    runs = {
        "(d) Unguided": _run("none", {}, n, seed, sigma_max=_SIGMA_MID),
        "(e) CFG, $w = 4$": _run("cfg", {"w": 4.0}, n, seed, sigma_max=_SIGMA_MID),
    }
    data, where = load_dataset("fractal"), resolve_device(device)
    fields = runs["(e) CFG, $w = 4$"].fields(device)
    grid = _CLOSE_UP.grid(_FINE, device=where)
    exact, main, guide = (
        _log_density(f, grid, _SIGMA_MID) for f in (data.field("A"), fields["main"], fields["uncond"])
    )
    start = runs["(d) Unguided"].start()
    points = start[_spread(start, _CLOSE_UP.grown(-0.02), 0.055)]
    score_main, score_guide = (fields[r].score(points.to(where), _SIGMA_MID).cpu() for r in ("main", "uncond"))

    figure, row = _row(5, foot=0.33)
    titles = (
        r"(a) Learned $p_1(x\,|\,\mathrm{A};\,\sigma_\mathrm{mid})$",
        r"(b) Weaker $p_0(x;\,\sigma_\mathrm{mid})$",
        r"(c) Ratio $\log\,p_1/p_0$",
        *runs,
    )
    for axes, title in zip(row, titles, strict=True):
        _frame(axes, _CLOSE_UP, title)
    for axes, name, density, score in zip(
        row, ("main", "guide"), (main, guide), (score_main, score_guide), strict=False
    ):
        _draw_bands(axes, density, PALETTE[name], region_levels(density, _BANDS))
        _draw_lines(axes, exact, region_levels(exact, _LINES))
        _draw_arrows(axes, points, score)
    ratio = main - guide
    held = ratio[guide > region_levels(guide, [0.999])]
    _draw_bands(row[2], ratio, PALETTE["ratio"], held.quantile(torch.linspace(0.05, 0.95, 7, device=held.device)))
    _draw_arrows(row[2], points, score_main - score_guide)
    regions = _regions(data, "A", plane_of(data), _CLOSE_UP)
    for axes, experiment in zip(row[3:], runs.values(), strict=True):
        _draw_regions(axes, regions, _CLOSE_UP)
        x = experiment.run(device).x
        chosen = x[:, _spread(start, _CLOSE_UP, 0.02)]
        _draw_paths(axes, chosen, width=0.6, opacity=0.6)
        _draw_samples(axes, chosen[-1], data, "A", plane_of(data), size=5)

    line = Line2D([], [], color=PALETTE["class"], linewidth=0.8, label=r"exact, at $\sigma_\mathrm{mid}$")
    arrow = Line2D(
        [],
        [],
        color=PALETTE["ink"],
        marker=r"$\rightarrow$",
        ls="",
        ms=9,
        mew=0,
        label=r"$\sigma_\mathrm{mid}^2\nabla\log p$",
    )
    keys = [line, arrow, _path_key(), *_sample_keys(), _region_key("class", "class A, 99 %")]
    _legend(figure, keys, columns=6)
    return figure


def plot_run(result: Result) -> Figure:
    """A run in the plane of its dataset: samples, some of the trajectories, and the exact regions in projection.

    Trajectories that are not finite are not drawn; they are counted beneath, as is what lies outside the window.
    """
    experiment, data = result.experiment, result.experiment.data
    plane = plane_of(data)
    window = window_of(data, plane)
    drawn = result.x[:, result.x.isfinite().all(-1).all(0)]

    caption = [line for text in (*_settings(experiment), _findings(result, plane, window)) for line in wrap(text, 76)]
    figure, (axes,) = _row(1, foot=0.5 + 0.16 * len(caption), side=5.2)
    _frame(axes, window, f"{data.title}: {experiment.label or 'all classes'}, {experiment.rule}")
    _draw_regions(axes, _regions(data, experiment.label, plane, window), window)
    _draw_paths(axes, plane.project(drawn[:, :_PATHS]), width=0.35, opacity=0.35)
    _draw_samples(axes, drawn[-1], data, experiment.label, plane, size=3)
    _caption(axes, "\n".join(caption))

    region = f"{experiment.label or 'all classes'}, 99 %{'' if data.dim == 2 else ', projected'}"
    _legend(figure, [*_sample_keys(), _path_key(), _region_key("class", region)], columns=2)
    return figure


def _settings(experiment: Experiment) -> list[str]:
    params = [f"{k} = {v:g}" if isinstance(v, float) else f"{k} = {v}" for k, v in experiment.params.items()]
    interval = [] if experiment.interval is None else ["{:g} < sigma <= {:g}".format(*experiment.interval)]
    fields = [f"{role} {name}" for role, name in experiment.references().items()]
    run = [f"{experiment.sampler}, {experiment.steps} steps", f"n = {experiment.n}, seed {experiment.seed}"]
    return [", ".join(part) for part in (params + interval, fields, run) if part]


def _findings(result: Result, plane: Plane, window: Window) -> str:
    found = result.metrics(resamples=0)
    uv = plane.project(result.x[-1])
    beyond = (uv < torch.tensor(window.low)) | (uv > torch.tensor(window.high))
    counts = {"diverged": result.diverged, "beyond the frame": int(beyond.any(-1).sum())}
    notes = "".join(f",  {count} {what}" for what, count in counts.items() if count)
    return f"outliers {found['outliers']:.1%},  coverage {found['coverage']:.0%}{notes}"


def _run(rule: str, params: Mapping[str, float], n: int, seed: int, sigma_max: float | None = None) -> Experiment:
    return Experiment(
        dataset="fractal",
        label="A",
        main=_FRACTAL["main"],
        uncond=_FRACTAL["uncond"],
        weak=_FRACTAL["weak"],
        rule=rule,
        params=params,
        n=n,
        seed=seed,
        sigma_max=sigma_max,
    )


@dataclass(frozen=True)
class _Region:
    """A highest-density region, as a grid of log-densities and the level at its border."""

    colour: str
    log_density: Tensor
    level: float


def _regions(data: Dataset, label: str | None, plane: Plane, window: Window) -> list[_Region]:
    """The exact regions, in projection, of the class that is sampled and, beneath it, of all others together."""
    fields = {"class": data.field(label)}
    if not data.mask(label).all():
        fields = {"others": data.components.mixture.subset(~data.mask(label)), **fields}
    flat = Plane(torch.zeros(2), torch.eye(2))
    regions = []
    for colour, field in fields.items():
        marginal = plane.marginal(field)
        level = float(log_density_levels(marginal, 0.0, [_REGION], flat, window_of(data, plane), n=_COARSE))
        regions.append(_Region(PALETTE[colour], _near(marginal, window, level), level))
    return regions


def _near(field: Field, window: Window, level: float) -> Tensor:
    """The clean log-density on the fine grid, evaluated only near a level's region; far from it, as it is far below.

    A coarse grid finds where that is. Its cells lie within a few standard deviations of whatever passes between them.
    """
    below = level - 50
    coarse = _log_density(field, window.grid(_COARSE), 0.0)
    wide = torch.nn.functional.max_pool2d(coarse[None], 3, stride=1, padding=1)[0] > below
    near = torch.nn.functional.interpolate(wide[None, None].float(), size=(_FINE, _FINE))[0, 0] > 0
    values = torch.full((_FINE, _FINE), below)
    values[near] = _log_density(field, window.grid(_FINE)[near], 0.0)
    return values


def _log_density(field: Field, x: Tensor, sigma: float) -> Tensor:
    return in_chunks(lambda part: field.log_density(part, sigma), x)


def _spread(x: Tensor, window: Window, distance: float) -> Tensor:
    """Which points to show: in order, those inside the window that are not nearer than ``distance`` to one before."""
    inside = ((x > torch.tensor(window.low)) & (x < torch.tensor(window.high))).all(-1).nonzero()[:, 0]
    chosen: list[int] = []
    for i in inside.tolist():
        if not chosen or (x[chosen] - x[i]).norm(dim=-1).min() >= distance:
            chosen.append(i)
    return torch.tensor(chosen, dtype=torch.long)


def _row(panels: int, foot: float, side: float = 1.92) -> tuple[Figure, list[Axes]]:
    """A figure of square panels in a row, ``side`` inches wide, a title above and ``foot`` inches of room beneath."""
    width = 2 * _EDGE + panels * side + (panels - 1) * _GAP
    height = _HEAD + side + foot + _EDGE
    figure = Figure(figsize=(width, height), facecolor="white")
    places = [(_EDGE + i * (side + _GAP), _EDGE + foot) for i in range(panels)]
    return figure, [figure.add_axes((x / width, y / height, side / width, side / height)) for x, y in places]


def _frame(axes: Axes, window: Window, title: str) -> None:
    axes.set(xlim=(window.low[0], window.high[0]), ylim=(window.low[1], window.high[1]), aspect="equal")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(linewidth=0.6, color=PALETTE["quiet"])
    axes.set_title(title, fontsize=_TEXT, color=PALETTE["ink"], pad=4)


def _caption(axes: Axes, text: str) -> None:
    axes.text(
        0.5, -0.03, text, transform=axes.transAxes, ha="center", va="top", fontsize=_TEXT - 1, color=PALETTE["quiet"]
    )


def _draw_regions(axes: Axes, regions: Sequence[_Region], window: Window) -> None:
    u, v = _ticks(window)
    for region in regions:
        level, top = region.level, float(region.log_density.max())
        if top <= level:
            continue  # none of it in view
        axes.contourf(u, v, region.log_density, levels=[level, top + 1], colors=[to_rgba(region.colour, 0.3)])
        axes.contour(
            u, v, region.log_density, levels=[level], colors=[region.colour], linewidths=0.6, linestyles="solid"
        )


def _ticks(window: Window) -> tuple[Tensor, Tensor]:
    grid = window.grid(_FINE)
    return grid[0, :, 0], grid[:, 0, 1]


def _draw_bands(axes: Axes, values: Tensor, colour: str, levels: Tensor) -> None:
    u, v = _ticks(_CLOSE_UP)
    rising = sorted(set(levels.tolist()))
    tints = [to_rgba(colour, 0.12 + 0.6 * i / len(rising)) for i in range(len(rising))]
    axes.contourf(u, v, values.cpu(), levels=rising, colors=tints, extend="max")


def _draw_lines(axes: Axes, values: Tensor, levels: Tensor) -> None:
    u, v = _ticks(_CLOSE_UP)
    axes.contour(
        u,
        v,
        values.cpu(),
        levels=sorted(levels.tolist()),
        colors=[PALETTE["class"]],
        linewidths=0.8,
        linestyles="solid",
    )


def _draw_arrows(axes: Axes, points: Tensor, score: Tensor) -> None:
    """Arrows from points to where they are denoised to: the score times the square of the noise level."""
    u, v = points.T
    to_u, to_v = (denoised_from_score(score, points, _SIGMA_MID) - points).T
    ink = PALETTE["ink"]
    axes.scatter(u, v, s=2.5, color=ink, linewidths=0, zorder=5)
    axes.quiver(u, v, to_u, to_v, angles="xy", scale_units="xy", scale=1, width=0.007, minlength=0, color=ink, zorder=5)


def _draw_paths(axes: Axes, x: Tensor, width: float, opacity: float) -> None:
    """Trajectories with shape ``(steps + 1, n, 2)``."""
    paths = LineCollection(list(x.transpose(0, 1).numpy()), colors=PALETTE["ink"], linewidths=width, alpha=opacity)
    axes.add_collection(paths, autolim=False)


def _draw_samples(axes: Axes, x: Tensor, data: Dataset, label: str | None, plane: Plane, size: float = 0.9) -> None:
    outside = data.field(label).log_density(x, 0.0) < hdr_threshold(data, label)
    uv = plane.project(x)
    for name, kept in (("samples", ~outside), ("outside", outside)):
        u, v = uv[kept].T
        axes.scatter(u, v, s=size, color=PALETTE[name], linewidths=0, rasterized=True, zorder=3, label=name)


def _sample_keys() -> list[Line2D]:
    keys = {"samples": "samples", "outside": "outside the exact 99 % region"}
    return [Line2D([], [], marker="o", ls="", ms=3.5, mew=0, color=PALETTE[k], label=v) for k, v in keys.items()]


def _path_key() -> Line2D:
    return Line2D([], [], color=PALETTE["ink"], linewidth=0.6, alpha=0.6, label="trajectories")


def _region_key(colour: str, text: str) -> Patch:
    return Patch(facecolor=to_rgba(PALETTE[colour], 0.3), edgecolor=PALETTE[colour], linewidth=0.6, label=text)


def _legend(figure: Figure, keys: Sequence[Any], columns: int) -> None:
    figure.legend(
        handles=keys,
        loc="lower center",
        ncols=columns,
        frameon=False,
        fontsize=_TEXT - 1,
        labelcolor=PALETTE["quiet"],
        borderaxespad=0.2,
        handletextpad=0.4,
        columnspacing=1.6,
    )


def save(figure: Figure, path: str | Path, dpi: int = 200) -> None:
    """Write a figure whole or not at all; the same figure gives the same file."""
    suffix = Path(path).suffix
    if suffix not in FORMATS:
        raise unknown(f"format of figure {str(path)!r}", suffix, FORMATS)
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)
    with writing(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "toyguide", "pdf.fonttype": 42}):
        figure.savefig(temporary, dpi=dpi, metadata=undated)
