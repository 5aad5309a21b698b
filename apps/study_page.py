"""The page around the studies: header, sidebar, theme."""

from __future__ import annotations

import panel as pn
import panel_material_ui as pmui
from panel.util import edit_readonly

from toyguide_apps.notices import complain
from toyguide_apps.page import THEME, links
from toyguide_apps.study_runner import RUNNER
from toyguide_apps.study_session import Studies

__all__ = ["studies_page"]


def studies_page() -> pmui.Page:
    """A new visitor's page."""
    pn.config.respect_explicit_sizing = True
    pn.config.exception_handler = lambda problem: complain(str(problem).splitlines()[0][:300])
    query = {k: v[0].decode("utf-8", "replace") for k, v in pn.state.session_args.items() if v}
    shown = Studies()
    problems = shown.enter(query)
    page = pmui.Page(
        title="toyguide studies",
        sidebar=shown.sidebar(),
        sidebar_width=318,
        sidebar_resizable=False,
        main=[shown],
        header=[links("studies", query)],
        theme_config=THEME,
        dark_theme=query.get("theme") == "dark",
        busy_indicator=None,
    )
    with edit_readonly(page):  # see the explorer's page
        page.busy = False
    document = pn.state.curdoc
    leave = RUNNER.listen(lambda: document.add_next_tick_callback(shown.refresh))
    pn.state.on_session_destroyed(lambda _context, leave=leave: leave())

    def tell(problems: list[str] = problems) -> None:
        for problem in problems:
            complain(problem)
        shown.refresh()  # what has happened since it was made

    pn.state.onload(tell)
    return page
