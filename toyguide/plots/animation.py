"""Runs as a film: noise becoming data, under up to four rules side by side.

The window follows the noise, from three noise levels around the data to the data alone. Between solver steps points
move on straight lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.animation import FFMpegWriter
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from toyguide.errors import InputError, unknown
from toyguide.experiment import Result
from toyguide.files import writing
from toyguide.geometry.planes import plane_of, window_of
from toyguide.metrics import are_outliers
from toyguide.palette import LIGHT
from toyguide.plots.parts import TEXT
from toyguide.plots.stage import compare

__all__ = ["FILMS", "animate"]

FILMS = (".gif", ".mp4")

_REACH = 3.0  # noise levels around the data that are visible
_COLOURS = 40  # of a GIF: a few hues and their shades
_HELD = 1.8  # seconds that the end is shown


def animate(
    results: Sequence[Result],
    path: str | Path,
    *,
    titles: Sequence[str] | None = None,
    seconds: float = 5.0,
    rate: int = 15,
    dpi: int = 100,
) -> None:
    """Write a film of runs side by side, as a GIF, or as an MP4 where ffmpeg is installed.

        runs = [tg.Experiment("fractal", "A", rule=rule, n=512).run() for rule in ("none", "autoguidance")]
        tg.plot.animate(runs, "rules.gif")

    Args:
        results: One to four runs of one dataset.
        path: The file to write, ``.gif`` or ``.mp4``.
        titles: A title for each panel; None for each run's rule and parameters.
        seconds: How long the film takes from the noise to the data, at most a minute.
        rate: Pictures per second, 1 to 50.
        dpi: Dots per inch, 30 to 600.

    Raises:
        InputError: If the format is unknown, there is no ffmpeg, a number is out of range, the file cannot be written,
            or :func:`toyguide.plots.compare` raises it.
    """
    suffix = Path(path).suffix
    if suffix not in FILMS:
        raise unknown(f"format of film {str(path)!r}", suffix, FILMS)
    if suffix == ".mp4" and not FFMpegWriter.isAvailable():
        raise InputError(f"film {str(path)!r}: there is no ffmpeg, expected a name that ends in .gif")
    if not 30 <= dpi <= 600:
        raise InputError(f"dpi = {dpi}: expected a whole number from 30 to 600")
    if not (0 < seconds <= 60 and 1 <= rate <= 50):
        raise InputError(f"{seconds} seconds at rate {rate}: expected at most 60 seconds, and a rate from 1 to 50")
    figure = compare(results, ("exact", "region", "samples"), titles=titles)
    actors = [_Actor(axes, result) for axes, result in zip(figure.axes, results, strict=True)]
    times = np.linspace(0.0, 1.0, max(2, round(seconds * rate))).tolist()
    held = round(_HELD * rate)
    with writing(path) as temporary:
        if suffix == ".gif":
            pictures = list(_pictures(figure, actors, times, dpi))
            # One palette for all pictures, of the last, which has all colours; the rarest, of outliers, included.
            palette = pictures[-1].quantize(_COLOURS, Image.Quantize.MAXCOVERAGE)
            first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
            durations = [1000 / rate] * len(others) + [1000 * _HELD]
            first.save(temporary, save_all=True, append_images=others, duration=durations, loop=0)
        else:
            writer = FFMpegWriter(fps=rate)
            with writer.saving(figure, str(temporary), dpi):
                for time in times + times[-1:] * held:
                    _show(actors, time)
                    writer.grab_frame()


class _Actor:
    """A panel whose samples move.

    Attributes:
        axes: The panel.
        window: The window of the data.
    """

    def __init__(self, axes: Axes, result: Result) -> None:
        data = result.experiment.data
        plane, paths = plane_of(data), result.paths()
        self.axes, self.window = axes, window_of(data, plane)
        self._uv, self._sigma = plane.project(paths), result.sigma
        outside = are_outliers(paths[-1], data, result.experiment.label)
        shown: dict[str, Tensor] = {"samples": ~outside, "halo": ~outside, "outside": outside, "outside halo": outside}
        self._scatters = [(c, shown[str(c.get_label())]) for c in axes.collections if c.get_label() in shown]
        chip = {"facecolor": LIGHT.ground, "edgecolor": LIGHT.frame, "boxstyle": "round,pad=0.3", "linewidth": 0.6}
        place: dict[str, Any] = {"transform": axes.transAxes, "ha": "left", "va": "top", "zorder": 6}
        self._chip = axes.text(0.025, 0.975, "", fontsize=TEXT, color=LIGHT.ink, bbox=chip, **place)

    def move(self, time: float) -> float:
        """Move the samples to where they are at a time from 0 to 1, and return the noise level there."""
        at = time * (len(self._uv) - 1)
        step = min(int(at), len(self._uv) - 2)
        uv = torch.lerp(self._uv[step], self._uv[step + 1], at - step)
        sigma = float(torch.lerp(self._sigma[step], self._sigma[step + 1], at - step))
        for scatter, kept in self._scatters:
            scatter.set_offsets(uv[kept].numpy())
        self._chip.set_text(f"σ = {sigma:.2g}")
        return sigma


def _show(actors: Sequence[_Actor], time: float) -> None:
    """Set all panels to a time, and their windows to the highest of their noise levels."""
    sigma = max(actor.move(time) for actor in actors)
    for actor in actors:
        half = max(actor.window.size) / 2
        window = actor.window.grown(math.hypot(half, _REACH * sigma) - half)
        actor.axes.set(xlim=(window.low[0], window.high[0]), ylim=(window.low[1], window.high[1]))


def _pictures(figure: Figure, actors: Sequence[_Actor], times: Sequence[float], dpi: int) -> Iterator[Image.Image]:
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    for time in times:
        _show(actors, time)
        canvas.draw()
        yield Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
