"""The page around an explorer: header, sidebar, theme."""

from __future__ import annotations

import panel as pn
import panel_material_ui as pmui
from panel.util import edit_readonly

from toyguide_apps.session import Explorer

__all__ = ["explorer_page"]

_THEME = {
    "palette": {"primary": {"main": "#2f5d9b"}, "secondary": {"main": "#b2560d"}},
    "typography": {"fontSize": 12.5, "button": {"textTransform": "none", "fontSize": "0.8rem", "letterSpacing": 0}},
    "components": {
        "MuiToolbar": {"styleOverrides": {"root": {"minHeight": "46px !important"}}},
        "MuiToggleButton": {
            "styleOverrides": {"root": {"textTransform": "none", "padding": "3px 8px", "whiteSpace": "nowrap"}}
        },
        "MuiButton": {"styleOverrides": {"root": {"padding": "3px 8px", "whiteSpace": "nowrap", "minWidth": 0}}},
    },
}


def explorer_page() -> pmui.Page:
    """A new visitor's page."""
    pn.config.respect_explicit_sizing = True
    explorer = Explorer()
    pn.config.exception_handler = explorer.refuse
    query = {k: v[0].decode("utf-8", "replace") for k, v in pn.state.session_args.items() if v}
    problems = explorer.enter(query)
    page = pmui.Page(
        title="toyguide explorer",
        sidebar=explorer.sidebar(),
        sidebar_width=318,
        sidebar_resizable=False,
        main=[explorer],
        header=[explorer.busy_sign],
        theme_config=_THEME,
        dark_theme=query.get("theme") == "dark",
        busy_indicator=None,
    )
    # Panel's own busy flag is one for all sessions, and each flip of it walks through every page's whole document: 45
    # ms, four times per change of a slider, for every visitor.
    with edit_readonly(page):
        page.busy = False
    pn.state.on_session_destroyed(lambda _context, explorer=explorer: explorer.close())
    pn.state.onload(lambda: explorer.open(problems))
    return page
