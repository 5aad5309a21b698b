"""The web app. ``explorer.py`` is its entry, for ``panel serve`` and ``toyguide app``."""
