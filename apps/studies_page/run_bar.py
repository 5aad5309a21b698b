"""The bar of a running study: how far it is, what is left, and a way to end it."""

from __future__ import annotations

from html import escape

import panel as pn
import panel_material_ui as pmui

from toyguide.errors import InputError
from toyguide.studies import study
from toyguide_apps.studies_page.html import STYLE, duration
from toyguide_apps.studies_page.runner import Ended, Run, Runner

__all__ = ["RunBar"]

_KEPT = "What is finished is kept: running it again continues."


class RunBar(pn.viewable.Viewer):
    """Shows a runner; empty where there is nothing to tell.

    Args:
        runner: The server's.
    """

    def __init__(self, runner: Runner) -> None:
        super().__init__()
        self._runner = runner
        # A run that ended before the visitor came is among the results, unless it failed.
        self._old = runner.ended if runner.ended and runner.ended.how != "failed" else None
        self._text = pn.pane.HTML("", stylesheets=[STYLE], sizing_mode="stretch_width", margin=(8, 10, 2, 10))
        self._bar = pmui.LinearProgress(value=0, variant="determinate", sizing_mode="stretch_width", margin=(4, 10))
        self._cancel = pmui.Button(label="Cancel", variant="outlined", color="error", size="small", margin=(8, 10))
        self._cancel.on_click(lambda _: runner.cancel())
        self._row = pn.Row(
            pn.Column(self._text, self._bar, sizing_mode="stretch_width", margin=0),
            self._cancel,
            sizing_mode="stretch_width",
            margin=(4, 0),
            styles={"border-left": "3px solid #2f7bd9", "background": "rgba(47,123,217,.09)"},
            visible=False,
        )
        self.show()

    def show(self) -> None:
        """Draw how it stands."""
        run = self._runner.running
        ended = self._runner.ended if self._runner.ended is not self._old else None
        self._row.visible = run is not None or ended is not None
        self._bar.visible = self._cancel.visible = run is not None
        if run is not None:
            self._bar.value = round(100 * run.share, 1)
            self._cancel.disabled = run.stopping
            self._text.object = _running(run)
        elif ended is not None:
            self._text.object = _ended(ended)

    def __panel__(self) -> pn.viewable.Viewable:
        return self._row


def _named(name: str, quick: bool) -> str:
    try:
        title = study(name).title
    except InputError:
        title = name
    return f"<b>{escape(title)}</b>, {'a quick look' if quick else 'a full run'}"


def _running(run: Run) -> str:
    if run.stopping:
        return f"<span role='status'>{_named(run.name, run.quick)}: cancelling. {_KEPT}</span>"
    left = "" if run.left is None else f", about {duration(run.left)} left"
    share = f"{run.share:.0%}{left}" if run.share > 0 else "just begun"
    kept = "What is finished is kept if it is cancelled."
    return f"{_named(run.name, run.quick)}: {share} <span class='small'>({escape(run.text)}). {kept}</span>"


def _ended(ended: Ended) -> str:
    how = {"done": "done.", "cancelled": f"cancelled. {_KEPT}", "failed": f"failed: {ended.problem}"}[ended.how]
    return f"<span role='status'>{_named(ended.name, ended.quick)}: {escape(how)}</span>"
