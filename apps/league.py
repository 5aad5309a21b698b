"""The league's entry: ``panel serve apps/league.py``, or ``toyguide app``. Assembly only."""

from __future__ import annotations

import panel as pn

from toyguide_apps.league_page.page import league_page

pn.extension(notifications=True)
league_page().servable()
