"""Figures for print: two of the autoguidance paper, one of any saved run, and the figures of the studies.

Each function returns a new matplotlib ``Figure`` and changes no global state of matplotlib.
"""

from toyguide.errors import InputError

try:
    import matplotlib  # noqa: F401
except ImportError as problem:
    raise InputError(
        "figures need matplotlib, which is not installed: expected pip install 'toyguide[plot]'"
    ) from problem

from toyguide.plots.figures import figure_1, figure_2, plot_run
from toyguide.plots.parts import FORMATS, PALETTE, save
from toyguide.plots.sheets import draw_sheet

__all__ = ["FORMATS", "PALETTE", "draw_sheet", "figure_1", "figure_2", "plot_run", "save"]
