"""The page of the league: what was compared, the figure, the table."""

from __future__ import annotations

from pathlib import Path

import panel as pn
import panel_material_ui as pmui
import param
from panel.custom import JSComponent

from toyguide.errors import InputError
from toyguide.league.report import introduction
from toyguide_apps.league_page.results import league_folder, shown, standings_of
from toyguide_apps.shared.frame import asked, framed
from toyguide_apps.shared.notices import refuse

__all__ = ["League", "LeagueModel", "league_page"]

_CODE = "code { color: inherit; }"  # the default is too pale on a light page
_MISSING = (
    "No league was run yet. `toyguide league` makes one: about half an hour on two cores, `--quick` a few minutes."
)


class LeagueModel(JSComponent):
    """The figure and the table; the browser does everything."""

    _esm = Path(__file__).with_name("league.js")
    league = param.Dict(default={}, doc="All that is drawn, from ``results.shown``.")


class League(pn.viewable.Viewer):
    """The whole page, for a server or a notebook."""

    def sidebar(self) -> list[pn.viewable.Viewable]:
        """How one's own rule takes part."""
        text = (
            "**Your own rule**\n\n`toyguide league --rule my_rule.py`\n\nruns it on the same networks and noise, and "
            "prints it beside the others with the differences, paired by seed.\n\n**Its best parameters**\n\n"
            "`toyguide tune RULE --aim outliers`"
        )
        return [pn.pane.Markdown(text, margin=(4, 14), stylesheets=[_CODE])]

    def __panel__(self) -> pn.viewable.Viewable:
        folder = league_folder()
        if folder is None:
            return pn.pane.Markdown(_MISSING, margin=10, stylesheets=[_CODE])
        try:
            text, drawn = "\n".join(introduction(standings_of(folder))), shown(folder)
        except InputError as problem:
            return pn.pane.Markdown(str(problem), margin=10)
        how = pmui.Accordion(
            ("How to read this, and what was matched", pn.pane.Markdown(text, stylesheets=[_CODE])),
            margin=(0, 10),
            sizing_mode="stretch_width",
        )
        model = LeagueModel(league=drawn, sizing_mode="stretch_width", margin=10)
        return pn.Column(how, model, sizing_mode="stretch_width", margin=0, styles={"max-width": "1180px"})


def league_page() -> pmui.Page:
    """A new visitor's page."""
    pn.config.exception_handler = refuse
    return framed("league", League(), asked())
