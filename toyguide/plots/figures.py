"""The two figures of the autoguidance paper, and one of any saved run.

References:
    Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024, arXiv 2406.02507, Figures 1 and 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from toyguide.datasets import load_dataset
from toyguide.devices import resolve_device
from toyguide.experiment import Experiment, Result
from toyguide.fields import denoised_from_score
from toyguide.geometry.contours import region_levels
from toyguide.geometry.planes import Plane, Window, plane_of, window_of
from toyguide.metrics import measure
from toyguide.palette import LIGHT, bands
from toyguide.plots.parts import (
    draw_regions,
    draw_samples,
    fine_grid,
    frame_panel,
    grid_ticks,
    legend_beneath,
    log_density_on,
    region_key,
    regions_of,
    row_of_squares,
    sample_keys,
    write_caption,
    write_title,
)
from toyguide.plots.stage import draw, settings_of

__all__ = ["figure_1", "figure_2", "plot_run"]

_FRACTAL = {"main": "fractal/main", "uncond": "fractal/uncond", "weak": "fractal/weak"}
_CLASS_A = Window((-0.75, -0.72), (1.45, 1.48))
_CLOSE_UP = Window((0.26, 0.70), (0.80, 1.24))
_SIGMA_MID = 0.03
_BANDS = (0.99, 0.9, 0.75, 0.5, 0.25)  # shares of the visible mass, from the outermost
_LINES = (0.99, 0.9, 0.5)


def figure_1(device: str = "cpu", n: int = 4096, seed: int = 0) -> Figure:
    """Figure 1 of the autoguidance paper: samples of one class of the fractal, exact and by four kinds of guidance.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        n: Samples in each panel.
        seed: The seed of all random numbers.
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

    figure, row = row_of_squares(len(panels), foot=0.40)
    plane = plane_of(data)
    regions = regions_of(data, "A", plane, _CLASS_A)
    for axes, letter, (title, x) in zip(row, "abcde", panels.items(), strict=True):
        frame_panel(axes, _CLASS_A, f"({letter}) {title}")
        draw_regions(axes, regions, _CLASS_A)
        draw_samples(axes, x, data, "A", plane)
        found = measure(x, data, "A", resamples=0)
        write_caption(axes, f"outliers {found['outliers']:.1%},  coverage {found['coverage']:.0%}")
    row[2].add_patch(
        Rectangle(_CLOSE_UP.low, *_CLOSE_UP.size, fill=False, edgecolor=LIGHT.ink, linewidth=0.8, zorder=4)
    )
    legend_beneath(
        figure,
        [*sample_keys(), region_key("class", "class A, 99 %"), region_key("others", "class B, 99 %")],
        columns=4,
    )
    return figure


def figure_2(device: str = "cpu", n: int = 4096, seed: int = 0) -> Figure:
    """Figure 2 of the autoguidance paper, a close-up: why guidance pulls samples onto the data.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        n: Trajectories to choose from: drawn are those that start in the close-up, at some distance from each other.
        seed: The seed of all random numbers.
    """
    runs = {
        "(d) Unguided": _run("none", {}, n, seed, sigma_max=_SIGMA_MID),
        "(e) CFG, $w = 4$": _run("cfg", {"w": 4.0}, n, seed, sigma_max=_SIGMA_MID),
    }
    data, where = load_dataset("fractal"), resolve_device(device)
    fields = {role: runs["(e) CFG, $w = 4$"].build_field(role, device) for role in ("main", "uncond")}
    grid = fine_grid(_CLOSE_UP, where)
    exact, main, guide = (
        log_density_on(f, grid, _SIGMA_MID) for f in (data.field("A"), fields["main"], fields["uncond"])
    )
    start = runs["(d) Unguided"].start()
    points = start[_spread(start, _CLOSE_UP.grown(-0.02), 0.055)]
    score_main, score_guide = (fields[r].score(points.to(where), _SIGMA_MID).cpu() for r in ("main", "uncond"))

    figure, row = row_of_squares(5, foot=0.33)
    titles = (
        r"(a) Learned $p_1(x\,|\,\mathrm{A};\,\sigma_\mathrm{mid})$",
        r"(b) Weaker $p_0(x;\,\sigma_\mathrm{mid})$",
        r"(c) Ratio $\log\,p_1/p_0$",
        *runs,
    )
    for axes, title in zip(row, titles, strict=True):
        frame_panel(axes, _CLOSE_UP, title)
    for axes, name, density, score in zip(
        row, ("main", "guide"), (main, guide), (score_main, score_guide), strict=False
    ):
        _draw_bands(axes, density, LIGHT.density[name], region_levels(density, _BANDS))
        _draw_lines(axes, exact, region_levels(exact, _LINES))
        _draw_arrows(axes, points, score)
    ratio = main - guide
    held = ratio[guide > region_levels(guide, [0.999])]
    _draw_bands(row[2], ratio, LIGHT.maps["ratio"][1], held.quantile(torch.linspace(0.05, 0.95, 7, device=held.device)))
    _draw_arrows(row[2], points, score_main - score_guide)
    regions = regions_of(data, "A", plane_of(data), _CLOSE_UP)
    for axes, experiment in zip(row[3:], runs.values(), strict=True):
        draw_regions(axes, regions, _CLOSE_UP)
        x = experiment.run(device).x
        chosen = x[:, _spread(start, _CLOSE_UP, 0.02)]
        _draw_paths(axes, chosen, width=0.6, opacity=0.6)
        draw_samples(axes, chosen[-1], data, "A", plane_of(data), size=5)

    line = Line2D([], [], color=LIGHT.density["exact"], linewidth=0.8, label=r"exact, at $\sigma_\mathrm{mid}$")
    arrow = Line2D(
        [],
        [],
        color=LIGHT.ink,
        marker=r"$\rightarrow$",
        ls="",
        ms=9,
        mew=0,
        label=r"$\sigma_\mathrm{mid}^2\nabla\log p$",
    )
    keys = [line, arrow, _path_key(), *sample_keys(), region_key("class", "class A, 99 %")]
    legend_beneath(figure, keys, columns=6)
    return figure


def plot_run(result: Result) -> Figure:
    """A run in the plane of its dataset: samples, some trajectories, and the exact density and region.

    Trajectories that are not finite are left out; the caption counts them, and the samples outside the window.
    """
    experiment, data = result.experiment, result.experiment.data
    plane = plane_of(data)
    window = window_of(data, plane)

    caption = [line for text in (*_settings(experiment), _findings(result, plane, window)) for line in wrap(text, 76)]
    figure, (axes,) = row_of_squares(1, foot=0.66 + 0.16 * len(caption), side=5.2)
    keys = draw(axes, result, plane=plane, window=window)
    write_title(axes, f"{data.title}: {experiment.label or 'all classes'}, {experiment.rule}")
    write_caption(axes, "\n".join(caption))
    legend_beneath(figure, keys, columns=2)
    return figure


def _settings(experiment: Experiment) -> list[str]:
    fields = [f"{role} {name}" for role, name in experiment.references().items()]
    run = [f"{experiment.sampler}, {experiment.steps} steps", f"n = {experiment.n}, seed {experiment.seed}"]
    return [", ".join(part) for part in (settings_of(experiment), fields, run) if part]


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


def _spread(x: Tensor, window: Window, distance: float) -> Tensor:
    """Indices of points inside the window, each at least ``distance`` from the ones chosen before it."""
    inside = ((x > torch.tensor(window.low)) & (x < torch.tensor(window.high))).all(-1).nonzero()[:, 0]
    chosen: list[int] = []
    for i in inside.tolist():
        if not chosen or (x[chosen] - x[i]).norm(dim=-1).min() >= distance:
            chosen.append(i)
    return torch.tensor(chosen, dtype=torch.long)


def _draw_bands(axes: Axes, values: Tensor, colour: str, levels: Tensor) -> None:
    u, v = grid_ticks(_CLOSE_UP)
    rising = sorted(set(levels.tolist()))
    axes.contourf(u, v, values.cpu(), levels=rising, colors=bands(colour, len(rising) + 1)[1:], extend="max")


def _draw_lines(axes: Axes, values: Tensor, levels: Tensor) -> None:
    u, v = grid_ticks(_CLOSE_UP)
    axes.contour(
        u,
        v,
        values.cpu(),
        levels=sorted(levels.tolist()),
        colors=[LIGHT.density["exact"]],
        linewidths=0.8,
        linestyles="solid",
    )


def _draw_arrows(axes: Axes, points: Tensor, score: Tensor) -> None:
    """Draw arrows from points to their denoised points: the score times the square of the noise level."""
    u, v = points.T
    to_u, to_v = (denoised_from_score(score, points, _SIGMA_MID) - points).T
    ink = LIGHT.ink
    axes.scatter(u, v, s=2.5, color=ink, linewidths=0, zorder=5)
    axes.quiver(u, v, to_u, to_v, angles="xy", scale_units="xy", scale=1, width=0.007, minlength=0, color=ink, zorder=5)


def _draw_paths(axes: Axes, x: Tensor, width: float, opacity: float) -> None:
    """Draw trajectories, with shape ``(steps + 1, n, 2)``."""
    paths = LineCollection(list(x.transpose(0, 1).numpy()), colors=LIGHT.path, linewidths=width, alpha=opacity)
    axes.add_collection(paths, autolim=False)


def _path_key() -> Line2D:
    return Line2D([], [], color=LIGHT.path, linewidth=0.6, alpha=0.6, label="trajectories")
