"""The frame around each page: header, sidebar, theme."""

from __future__ import annotations

from typing import Protocol

import panel as pn
import panel_material_ui as pmui
from bokeh.document import Document
from bokeh.models import CustomJS
from panel.links import Callback
from panel.util import edit_readonly

__all__ = ["Framed", "asked", "framed"]

_LINKS = """
    nav { display: flex; gap: 4px; font-size: 13.5px; }
    a { color: inherit; text-decoration: none; padding: 6px 10px; border-radius: 4px; }
    @media (max-width: 700px) { nav { gap: 0; } a { padding: 6px; } }
    a:hover, a:focus-visible { background: rgba(128,128,128,.18); }
    a[aria-current] { box-shadow: inset 0 -2px currentColor; border-radius: 0; font-weight: 600; }
"""
_SHARED = {
    "typography": {"fontSize": 12.5, "button": {"textTransform": "none", "fontSize": "0.8rem", "letterSpacing": 0}},
    "components": {
        "MuiAppBar": {
            "styleOverrides": {
                "root": {
                    "backgroundColor": "var(--mui-palette-background-paper) !important",
                    "color": "var(--mui-palette-text-primary) !important",
                    "boxShadow": "none",
                    "borderBottom": "1px solid var(--mui-palette-divider)",
                }
            }
        },
        "MuiToolbar": {
            "styleOverrides": {
                "root": {
                    "minHeight": "42px !important",
                    "& h3": {"fontSize": "17px !important", "color": "inherit !important"},
                    "& a": {"color": "inherit !important"},
                    # Out of sight where there is no room, as the links name the page too; still the home link's name.
                    "@media (max-width: 700px)": {
                        "& h3": {"position": "absolute", "width": "1px", "height": "1px", "overflow": "hidden"}
                    },
                }
            }
        },
        # No text below 12 px: a label on a field's edge is 0.86 of 14 px instead of 0.75.
        "MuiInputLabel": {"styleOverrides": {"shrink": {"transform": "translate(14px, -9px) scale(0.88)"}}},
        "MuiOutlinedInput": {"styleOverrides": {"notchedOutline": {"& legend": {"fontSize": "0.88em"}}}},
        # The template's busy indicator, which no page uses.
        "MuiLinearProgress": {"defaultProps": {"aria-hidden": True}},
        "MuiTooltip": {
            "defaultProps": {"describeChild": True},  # a tooltip is no name; a plain element must not have one
            "styleOverrides": {"tooltip": {"fontSize": "13px", "lineHeight": 1.35}},
        },
        "MuiSlider": {"styleOverrides": {"thumb": {"width": "20px", "height": "20px"}}},
        "MuiToggleButton": {
            "styleOverrides": {"root": {"textTransform": "none", "padding": "3px 8px", "whiteSpace": "nowrap"}}
        },
        "MuiButton": {"styleOverrides": {"root": {"padding": "3px 8px", "whiteSpace": "nowrap", "minWidth": 0}}},
    },
}


# What only the browser knows: the system's theme, which an address may overrule, and whether there is room for the
# sidebar beside the page.
_AT_HOME = """
    const page = [...Bokeh.documents[0].all_models].find((model) => model.name == 'page' && 'dark_theme' in model)
    const dark = matchMedia('(prefers-color-scheme: dark)').matches
    if (dark && !location.search.includes('theme=')) page.dark_theme = true
    if (innerWidth < 900) page.sidebar_open = false
"""


# Contrast of at least 4.5 on either ground.
_THEME = {
    "light": {**_SHARED, "palette": {"primary": {"main": "#2f5d9b"}, "secondary": {"main": "#b2560d"}}},
    "dark": {**_SHARED, "palette": {"primary": {"main": "#8ab4f8"}, "secondary": {"main": "#ffb07a"}}},
}


class Framed(Protocol):
    """A page's content: a Panel viewer with a sidebar."""

    def sidebar(self) -> list[pn.viewable.Viewable]: ...


def _links(here: str, query: dict[str, str]) -> pn.viewable.Viewable:
    """The server's pages, in the header of each.

    Args:
        here: The current page's name.
        query: Its URL's query, whose theme is passed on.
    """
    theme = "?theme=dark" if query.get("theme") == "dark" else ""
    pages = {"explorer": "Explorer", "studies": "Studies", "league": "League"}
    marked = {name: ' aria-current="page"' if name == here else "" for name in pages}
    items = "".join(f'<a href="{name}{theme}"{marked[name]}>{text}</a>' for name, text in pages.items())
    return pn.pane.HTML(f"<nav aria-label='Pages'>{items}</nav>", stylesheets=[_LINKS], margin=(0, 10))


def framed(here: str, content: Framed, query: dict[str, str], *header: pn.viewable.Viewable) -> pmui.Page:
    """A page with the header and sidebar that all pages have.

    Args:
        here: The page's name.
        content: The page's content.
        query: Its URL's query.
        header: Further items of the header.
    """
    page = pmui.Page(
        name="page",
        title=f"toyguide {here}",
        sidebar=content.sidebar(),
        sidebar_width=318,
        sidebar_resizable=False,
        main=[content],
        header=[_links(here, query), *header],
        theme_config=_THEME,
        dark_theme=query.get("theme") == "dark",
        busy_indicator=None,
    )
    # Panel's own busy flag is one for all sessions, and each flip of it walks through every page's whole document: 45
    # ms, four times per change of a slider, for every visitor.
    with edit_readonly(page):
        page.busy = False
    document = pn.state.curdoc
    if document is not None:
        document.js_on_event("document_ready", CustomJS(code=_AT_HOME))
    pn.state.on_session_destroyed(lambda _context: _release(page, document))
    return page


def _release(page: pmui.Page, document: Document | None) -> None:
    """Drop the references to a page that Panel keeps after its session has ended.

    Args:
        page: The page.
        document: Its Bokeh document.
    """
    # The page follows the server's busy flag, and param keeps the watcher when another value is assigned.
    for watcher in list(pn.state.param.watchers.get("busy", {}).get("value", [])):
        if getattr(getattr(watcher.fn, "__self__", None), "self", None) is page:
            pn.state.param.unwatch(watcher)
    # The registry's keys are weak, but scripts refer to the widgets that are their keys.
    for part in page.select():
        Callback.registry.pop(part, None)
    # The notifications' entry: Panel forgets the notifications before it looks for their entry.
    for reference, (_, _, shown_in, _) in list(pn.state._views.items()):
        if shown_in is document:
            del pn.state._views[reference]


def asked() -> dict[str, str]:
    """The query of a new visitor's URL."""
    return {k: v[0].decode("utf-8", "replace") for k, v in pn.state.session_args.items() if v}
