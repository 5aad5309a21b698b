"""The page around the studies: header, sidebar, theme."""

from __future__ import annotations

import panel as pn
import panel_material_ui as pmui

from toyguide_apps.shared.frame import asked, framed
from toyguide_apps.shared.notices import complain, refuse
from toyguide_apps.studies_page.runner import RUNNER
from toyguide_apps.studies_page.session import Studies

__all__ = ["studies_page"]


def studies_page() -> pmui.Page:
    """A new visitor's page."""
    pn.config.respect_explicit_sizing = True
    pn.config.exception_handler = refuse
    query = asked()
    shown = Studies()
    problems = shown.enter(query)
    page = framed("studies", shown, query)
    document = pn.state.curdoc
    leave = RUNNER.listen(lambda: document.add_next_tick_callback(shown.refresh))
    pn.state.on_session_destroyed(lambda _context, leave=leave: leave())

    def tell(problems: list[str] = problems) -> None:
        for problem in problems:
            complain(problem)
        shown.refresh()  # what has happened since it was made

    pn.state.onload(tell)
    return page
