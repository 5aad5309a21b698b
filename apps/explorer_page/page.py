"""A visitor's explorer in its frame."""

from __future__ import annotations

import panel as pn
import panel_material_ui as pmui

from toyguide_apps.explorer_page.session import Explorer
from toyguide_apps.shared.frame import asked, framed
from toyguide_apps.shared.notices import refuse

__all__ = ["explorer_page"]


def explorer_page() -> pmui.Page:
    """A new visitor's page."""
    pn.config.respect_explicit_sizing = True
    explorer = Explorer()
    pn.config.exception_handler = refuse
    query = asked()
    problems = explorer.enter(query)
    page = framed("explorer", explorer, query)
    explorer.state.dark = page.dark_theme
    page.param.watch(lambda event: setattr(explorer.state, "dark", event.new), "dark_theme")
    pn.state.on_session_destroyed(lambda _context, explorer=explorer: explorer.close())
    pn.state.onload(lambda: explorer.open(problems))
    return page
