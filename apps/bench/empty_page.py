"""What a first picture is compared with: a page of the same template with one empty plot."""

from __future__ import annotations

import panel as pn
from bokeh.plotting import figure

from toyguide_apps.shared.frame import framed


class Empty(pn.viewable.Viewer):
    """One empty plot."""

    def sidebar(self) -> list[pn.viewable.Viewable]:
        return []

    def __panel__(self) -> pn.viewable.Viewable:
        return pn.pane.Bokeh(figure(height=400, width=400, name="panel-1-figure"))


pn.extension("katex", notifications=True)
pn.config.respect_explicit_sizing = True
framed("explorer", Empty(), {}).servable()
