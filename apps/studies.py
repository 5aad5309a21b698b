"""The studies' entry: ``panel serve apps/explorer.py apps/studies.py``, or ``toyguide app``. Assembly only."""

from __future__ import annotations

import panel as pn

from toyguide_apps.studies_page.page import studies_page

pn.extension(notifications=True)
studies_page().servable()
