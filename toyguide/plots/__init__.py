"""Figures for print: those of the autoguidance paper, one of any saved run, and the sheets of the studies.

Each function returns a matplotlib ``Figure`` of its own; nothing global is touched.
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
