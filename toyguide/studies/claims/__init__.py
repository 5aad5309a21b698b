"""Claims of papers, one per file; each file is discovered. ``shared`` has what several of them use."""

from __future__ import annotations

import os
from functools import cache
from types import ModuleType

from toyguide.plugins import import_plugins

__all__ = ["own_claims"]


@cache
def own_claims() -> list[ModuleType]:
    """The files in the folders of ``TOYGUIDE_CLAIMS``, imported once.

    Raises:
        InputError: If a folder does not exist, or a file cannot be imported or has the name of another one.
    """
    return import_plugins("TOYGUIDE_CLAIMS", os.environ.get("TOYGUIDE_CLAIMS", ""), "toyguide_claims")
