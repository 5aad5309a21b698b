"""The web app: ``explorer.py`` and ``studies.py`` are its pages, for ``panel serve``; ``toyguide app`` serves both."""
