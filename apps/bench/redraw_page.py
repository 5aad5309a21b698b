"""What an answer is compared with: the explorer's stage, whose slider has two finished pictures drawn in turn."""

from __future__ import annotations

from typing import Any

import panel as pn

from toyguide_apps.bench.visitor import SCENE
from toyguide_apps.explorer_page.compute import picture
from toyguide_apps.explorer_page.controls import LiveSlider
from toyguide_apps.explorer_page.permalink import read
from toyguide_apps.explorer_page.state import ExplorerState
from toyguide_apps.explorer_page.views.parts import Look
from toyguide_apps.explorer_page.views.stage import StageView
from toyguide_apps.shared.frame import framed


class Redrawn(pn.viewable.Viewer):
    """The stage."""

    def __init__(self) -> None:
        super().__init__()
        state = ExplorerState()
        read(state, SCENE)
        self._pictures = []
        for w in (3.0, 4.0):
            state.set({"params": {"w": w}})
            self._pictures.append(picture(state.request()))
        self._stage = StageView(state)
        self._stage.show(self._pictures[0], Look())
        self._slider = LiveSlider(start=0, end=10, step=0.1, value=3.0)
        self._slider.param.watch(self._redraw, "value")

    def _redraw(self, _event: Any) -> None:
        self._pictures.reverse()
        with pn.io.hold():
            self._stage.show(self._pictures[0], Look())

    def sidebar(self) -> list[pn.viewable.Viewable]:
        return [self._slider]

    def __panel__(self) -> pn.viewable.Viewable:
        return pn.Column(self._stage, sizing_mode="stretch_width", margin=0)


pn.extension("katex", notifications=True)
pn.config.respect_explicit_sizing = True
framed("explorer", Redrawn(), {}).servable()
