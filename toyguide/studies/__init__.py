"""Studies: claims of papers, put to the test. One claim per file, found by being there; see ``base``."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from toyguide.errors import unknown
from toyguide.studies.base import Plan, Study
from toyguide.studies.run import Outcome, Progress, run_study

__all__ = ["Outcome", "Plan", "Progress", "Study", "run_study", "studies", "study"]


@cache
def studies() -> dict[str, Study]:
    """All studies by name, in the order they are listed in."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    found = [cls() for cls in Study.__subclasses__() if cls.name]
    return {s.name: s for s in sorted(found, key=lambda s: (s.order, s.name))}


def study(name: str) -> Study:
    """A study by name.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in studies():
        raise unknown("study", name, studies())
    return studies()[name]
