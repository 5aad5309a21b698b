"""What an answer is compared with: the explorer's plots, whose slider has two finished pictures drawn in turn."""

from __future__ import annotations

from typing import Any

import panel as pn

from toyguide_apps.bench.visitor import SCENE
from toyguide_apps.explorer_page.compute import picture
from toyguide_apps.explorer_page.controls import LiveSlider
from toyguide_apps.explorer_page.permalink import read
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.plots import Plots
from toyguide_apps.shared.frame import framed


class Redrawn(pn.viewable.Viewer):
    """The plots."""

    def __init__(self) -> None:
        super().__init__()
        state = ExplorerState()
        read(state, SCENE)
        self._pictures = []
        for w in (3.0, 4.0):
            state.set({"params": {"w": w}})
            self._pictures.append(picture(state.request()))
        self._plots = Plots(state)
        self._plots.show(self._pictures[0])
        self._slider = LiveSlider(start=0, end=10, step=0.1, value=3.0)
        self._slider.param.watch(self._redraw, "value")

    def _redraw(self, _event: Any) -> None:
        self._pictures.reverse()
        with pn.io.hold():
            self._plots.show(self._pictures[0])

    def sidebar(self) -> list[pn.viewable.Viewable]:
        return [self._slider]

    def __panel__(self) -> pn.viewable.Viewable:
        return pn.Column(self._plots, self._plots.scrubber(), sizing_mode="stretch_width", margin=0)


pn.extension("katex", notifications=True)
pn.config.respect_explicit_sizing = True
framed("explorer", Redrawn(), {}).servable()
