"""The figure of the growth: one panel for each thing that grows, both axes logarithmic."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from toyguide.palette import LIGHT

__all__ = ["growth_figure"]

# Told apart by marker and line too, not by colour alone.
_STYLES = tuple(zip(LIGHT.panels, "os", ("-", "--"), strict=False))
_PANEL, _HEIGHT, _TEXT = 2.75, 3.0, 8.5  # inches, inches, points


def growth_figure(series: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Cost against size, with the slope of each line.

    Args:
        series: As ``dataclasses.asdict`` makes them of ``toyguide.bench.growth.Series``.
        title: What it was measured on.
    """
    panels = [(by, list(lines)) for by, lines in itertools.groupby(series, key=lambda s: s["by"])]
    figure = Figure(figsize=(_PANEL * len(panels), _HEIGHT), facecolor="white", layout="constrained")
    figure.suptitle(title, fontsize=_TEXT, color=LIGHT.quiet)
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (by, lines) in zip(row, panels, strict=True):
        for line, (colour, marker, dashes) in zip(lines, _STYLES, strict=False):
            axes.loglog(
                line["sizes"],
                line["seconds"],
                label=f"{line['what']}: slope {line['slope']:.2f}",
                color=colour,
                marker=marker,
                linestyle=dashes,
                markersize=4,
                linewidth=1.3,
            )
        _dress(axes, by, lines[0])
    row[0].set_ylabel("seconds", fontsize=_TEXT, color=LIGHT.ink)
    return figure


def _dress(axes: Axes, by: str, line: Mapping[str, Any]) -> None:
    axes.set_xlabel(f"{by}\n({line['held']})", fontsize=_TEXT, color=LIGHT.ink)
    few = max(line["sizes"]) <= 1000
    axes.set_xticks(line["sizes"] if few else [s for s in line["sizes"] if str(s).strip("0") == "1"])
    if few:
        axes.set_xticklabels(map(str, line["sizes"]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=_TEXT - 0.5, colors=LIGHT.ink, width=0.6)
    axes.grid(linewidth=0.4, alpha=0.5, color=LIGHT.region)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(  # above, where no line can be
        fontsize=_TEXT - 0.5,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        frameon=False,
        handlelength=2.8,
        borderaxespad=0.2,
        labelcolor=LIGHT.ink,
    )
