"""The explorer's entry: ``panel serve apps/explorer.py``, or ``toyguide app``. Assembly only."""

from __future__ import annotations

import panel as pn

from toyguide_apps.explorer_page.page import explorer_page

pn.extension("katex", notifications=True)
explorer_page().servable()
