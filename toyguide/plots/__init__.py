"""Figures for print: runs side by side, two of the autoguidance paper, one of a saved run, and those of the studies.

Each function returns a new matplotlib ``Figure`` and changes no global state of matplotlib.
"""

from toyguide.errors import InputError

try:
    import matplotlib  # noqa: F401
except ImportError as problem:
    raise InputError(
        "figures need matplotlib, which is not installed: expected pip install 'toyguide[plot]'"
    ) from problem

from toyguide.plots.animation import FILMS, animate
from toyguide.plots.figures import figure_1, figure_2, plot_run
from toyguide.plots.parts import FORMATS, save
from toyguide.plots.sheets import draw_sheet
from toyguide.plots.stage import LAYERS, compare, draw

__all__ = [
    "FILMS",
    "FORMATS",
    "LAYERS",
    "animate",
    "compare",
    "draw",
    "draw_sheet",
    "figure_1",
    "figure_2",
    "plot_run",
    "save",
]
